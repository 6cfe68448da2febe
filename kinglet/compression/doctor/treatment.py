"""What repairs are worth one by one, and the file with those that help."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import onnx

from kinglet.compression.doctor.bisection import Bisection, bisect, damages
from kinglet.compression.doctor.effects import Effect, Trials, difference, latency_changes, logits_of
from kinglet.compression.doctor.findings import CRITICAL, FASTER, TO_FLOAT, WARNING, Finding, judged, ranked
from kinglet.compression.doctor.repairs import in_float
from kinglet.compression.doctor.subject import Subject
from kinglet.reporting import Report, silent

# Layers whose return to float by themselves is priced: those with the largest damage.
PRICED_LAYERS = 5


@dataclass(frozen=True)
class Price:
    """What the return of one layer to float is worth."""

    layer: str
    effect: Effect

    def to_dict(self) -> dict[str, Any]:
        """Return the price as JSON-ready values."""
        return {"layer": self.layer, **self.effect.to_dict()}


@dataclass(frozen=True)
class Repaired:
    """A file with the repairs that help, in QDQ form, and their codes in the order they were made.

    float_layers: those that went back to float.
    """

    model: onnx.ModelProto
    codes: tuple[str, ...]
    float_layers: tuple[str, ...]


def check_layers(subject: Subject, bisection: Bisection | None) -> list[Finding]:
    """Return a finding on the layers whose return to float brings the accuracy back; none if nothing was lost."""
    if bisection is None or not bisection.layers:
        return []
    n_layers = len(subject.quantized)
    evidence: dict[str, Any] = {
        "layers": len(bisection.layers),
        "of": n_layers,
        "order": bisection.by,
        "files_tried": bisection.tries,
    }
    if bisection.prefix is not None:
        evidence["first_layers_that_would_do"] = bisection.prefix
    if not bisection.enough:
        return [
            Finding(
                "accuracy-lost-elsewhere",
                CRITICAL,
                (),
                f"The accuracy does not come back with all {n_layers} layers in float: it is not lost in rounding.",
                evidence,
                "See whether both files are given the images that they were made for.",
            )
        ]
    return [
        Finding(
            TO_FLOAT,
            WARNING,
            bisection.layers,
            f"{len(bisection.layers)} of {n_layers} layers in float bring the accuracy back within the tolerance.",
            evidence,
            "Mend what is cheaper first; leave these layers in float (nodes_to_exclude) if it is not enough.",
            partial(in_float, subject=subject, names=bisection.layers),
        )
    ]


def priced(
    subject: Subject,
    findings: list[Finding],
    damage: dict[str, float],
    trials: Trials,
    seconds: float,
    threads: int,
    report: Report = silent,
) -> tuple[float, list[Finding], list[Price]]:
    """Return the file's latency in microseconds, the findings with the effects of their repairs, and single layers'.

    All effects are against the file as it is. seconds: of timing for every file.
    """
    model = subject.graph.model
    worst = sorted(damage, key=lambda name: -damage[name])[:PRICED_LAYERS]
    files = {f"finding {place}": finding.mend(model) for place, finding in enumerate(findings) if finding.mend}
    files |= {name: in_float(model, subject, [name]) for name in worst}
    report(0, 1, f"timing {len(files)} repaired files")
    latency, changes = latency_changes(subject.original, files, seconds, threads)
    answers = logits_of(subject.original, trials.inputs)
    effects = {}
    for number, (name, file) in enumerate(files.items(), 1):
        gain = difference(logits_of(file, trials.inputs), answers, trials.labels)
        effects[name] = Effect(gain, changes[name], changes[name].value / latency)
        report(number, len(files), "effect of repairs")
    judged_findings = [
        judged(finding, effects[f"finding {place}"], trials.tolerance) if finding.mend else finding
        for place, finding in enumerate(findings)
    ]
    return latency, judged_findings, [Price(name, effects[name]) for name in worst]


def repair(subject: Subject, findings: list[Finding], trials: Trials, report: Report = silent) -> Repaired | None:
    """Return the file with all repairs that help, one upon the other; None if none does.

    The most important first; each is kept if with those before it the file is better still. If that is not enough,
    the fewest layers that bring the accuracy back go to float.
    """
    current = subject.graph.model
    codes: list[str] = []
    for finding in ranked(findings):
        if finding.mend is None or finding.code == TO_FLOAT or not _helps(finding.effect):
            continue
        candidate = finding.mend(current)
        if _is_better(candidate, current, trials):
            current = candidate
            codes.append(finding.code)
    layers: tuple[str, ...] = ()
    if not trials.verdict(current).is_enough:
        found = bisect(current, subject, trials, damages(subject, trials, current, report), report)
        if found.enough:
            layers = found.layers
            current = in_float(current, subject, layers)
            codes.append(TO_FLOAT)
    return Repaired(current, tuple(codes), layers) if codes else None


def _helps(effect: Effect | None) -> bool:
    return effect is not None and (effect.accuracy.low > 0 or effect.is_faster(FASTER))


def _is_better(candidate: onnx.ModelProto, current: onnx.ModelProto, trials: Trials) -> bool:
    """Whether a candidate is within the tolerance, or nearer to the float file than the current file is."""
    if trials.verdict(candidate).is_enough:
        return True
    right, before = (
        (logits_of(model, trials.inputs).argmax(1) == trials.labels).mean() for model in (candidate, current)
    )
    return bool(right >= before and trials.divergence(candidate) < trials.divergence(current))
