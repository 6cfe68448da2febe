"""The steps of quantization, and where they stop."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest

from kinglet.compression.guard import Verdict
from kinglet.compression.ladder import BIAS_CORRECTION, Bench, Candidate, climb
from kinglet.compression.quantization import Variant
from kinglet.evidence.bootstrap import Interval

GOOD, BAD = (Verdict(Interval(value, value, value), 0.003, 6000) for value in (0.0, -0.1))


def candidate(divergence: float) -> Candidate:
    return Candidate(onnx.ModelProto(), Variant("minmax", 8, (), 1.0, divergence), onnx.ModelProto(), {})


def bench(is_good) -> Bench:
    """A bench whose judgement needs only the divergence; a candidate's model carries it as its name."""
    fields = dict.fromkeys(Bench.__dataclass_fields__)
    fields["judge"] = lambda model: GOOD if is_good(float(model.doc_string)) else BAD
    fields["report"] = lambda *_: None
    return Bench(**fields)


def steps_that_make(made: dict[str, float | None], taken: list[str]) -> dict:
    """Return steps that make models of these divergences, and note in `taken` that they were taken."""

    def step_of(name):
        def step(given, _):
            taken.append(name)
            return None if made[name] is None else named(made[name])

        return step

    return {name: step_of(name) for name in made}


def named(divergence: float) -> Candidate:
    return replace(candidate(divergence), quantized=onnx.ModelProto(doc_string=str(divergence)))


@pytest.mark.parametrize(
    ("limit", "made", "taken", "kept", "last"),
    [
        # Enough at once: bias correction is tried in any case, and kept if it helps.
        (1.0, {BIAS_CORRECTION: 0.4, "b": 0.1}, 1, [True, True], 0.4),
        (1.0, {BIAS_CORRECTION: 0.6, "b": 0.1}, 1, [True, False], 0.5),
        # Goes on until it is enough.
        (0.2, {BIAS_CORRECTION: 0.4, "b": 0.2, "c": 0.1}, 2, [True, True, True], 0.2),
        # What makes it worse is not kept, and what cannot be done is passed over.
        (0.2, {BIAS_CORRECTION: 0.4, "b": 0.45, "c": None, "d": 0.1}, 4, [True, True, False, True], 0.1),
        # Nothing is enough: the best is kept.
        (0.0, {BIAS_CORRECTION: 0.6, "b": 0.3, "c": 0.4}, 3, [True, False, True, False], 0.3),
    ],
)
def test_steps_are_taken_until_the_guard_lets_the_model_pass(limit, made, taken, kept, last):
    found: list[str] = []
    steps = steps_that_make(made, found)
    best, verdict, steps = climb(named(0.5), bench(lambda divergence: divergence <= limit), steps)
    assert found == list(made)[:taken]
    assert [step["kept"] for step in steps] == kept
    assert best.variant.divergence == last
    assert verdict is (GOOD if last <= limit else BAD)
