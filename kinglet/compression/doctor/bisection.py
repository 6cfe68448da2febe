"""Which layers an int8 file loses its accuracy in: the fewest whose return to float brings it back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from kinglet.compression.doctor.effects import Trials
from kinglet.compression.doctor.repairs import in_float
from kinglet.compression.doctor.subject import Subject
from kinglet.reporting import Report, silent

# Sets of at most this many layers are thinned out one by one in the end.
THINNED = 12


@dataclass(frozen=True)
class Bisection:
    """What was found.

    layers: the smallest set found, those with the largest damage first; empty if nothing has to be in float.
    enough: whether it brings the file within the tolerance. by: "damage" or "prefix", the order in which the layers
    were returned to float. prefix: how many layers from the input on it takes, None if not even all of them suffice.
    tries: how many files were judged.
    """

    layers: tuple[str, ...]
    enough: bool
    by: str
    prefix: int | None
    tries: int


def damages(subject: Subject, trials: Trials, model: onnx.ModelProto, report: Report = silent) -> dict[str, float]:
    """Return what every quantized layer does to the answers by itself: {name: divergence in nats}, graph order.

    model: the subject's file in QDQ form, repaired or not. One layer is as in the file and all others are in float:
    its own error, times how sensitive the answers are to it.
    """
    names = [layer.name for layer in subject.quantized]
    found = {}
    for number, name in enumerate(names, 1):
        alone = in_float(model, subject, [other for other in names if other != name])
        found[name] = max(0.0, trials.divergence(alone))
        report(number, len(names), "damage by layer")
    return found


def bisect(
    model: onnx.ModelProto, subject: Subject, trials: Trials, damage: dict[str, float], report: Report = silent
) -> Bisection:
    """Return the fewest layers that have to be in float for `model`, in QDQ form, to be within the tolerance.

    Two orders are bisected, each on how many of its first layers are in float: by damage, the largest first, and
    from the input on. The smaller set is thinned out: a layer that is not needed goes back to int8. More layers in
    float are taken to be no worse; where that fails the set found is still one that was judged to be enough.
    """
    tried: dict[frozenset[str], bool] = {}

    def is_enough(names: Sequence[str]) -> bool:
        key = frozenset(names)
        if key not in tried:
            tried[key] = trials.verdict(in_float(model, subject, names) if names else model).is_enough
            report(len(tried), len(tried) + 1, f"{len(names)} layers in float: {'enough' if tried[key] else 'too few'}")
        return tried[key]

    by_place = list(damage)
    by_damage = sorted(damage, key=lambda name: -damage[name])
    if is_enough([]):
        return Bisection((), True, "damage", 0, len(tried))
    if not is_enough(by_place):
        return Bisection(tuple(by_damage), False, "damage", None, len(tried))
    count, prefix = (_fewest(len(order), _first_of(order, is_enough)) for order in (by_damage, by_place))
    chosen, by = (by_damage[:count], "damage") if count <= prefix else (by_place[:prefix], "prefix")
    if len(chosen) <= THINNED:
        for name in sorted(chosen, key=lambda item: damage[item]):
            rest = [other for other in chosen if other != name]
            if rest and is_enough(rest):
                chosen = rest
    chosen = sorted(chosen, key=lambda name: -damage[name])
    return Bisection(tuple(chosen), True, by, prefix, len(tried))


def _first_of(order: list[str], is_enough: Callable[[Sequence[str]], bool]) -> Callable[[int], bool]:
    return lambda count: is_enough(order[:count])


def _fewest(most: int, is_enough: Callable[[int], bool]) -> int:
    """Return the smallest number, at most `most`, that is enough; `most` is known to be."""
    low, high = 0, most  # The first is not enough, the second is.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
