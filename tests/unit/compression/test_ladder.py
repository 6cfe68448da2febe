"""The steps of quantization, and where they stop."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest

from kinglet.adoption import adopt
from kinglet.compression import ladder
from kinglet.compression.classification_judge import ClassificationJudge, LabelledRows
from kinglet.compression.guard import Verdict
from kinglet.compression.ladder import (
    BIAS_CORRECTION,
    Bench,
    Candidate,
    Settings,
    calibrated,
    climb,
    finished_like,
    made_from,
    open_bench,
    rounded,
    scored,
)
from kinglet.compression.quantization import Variant, quantize_static, weighted_layers
from kinglet.compression.saturation import Emulator
from kinglet.compression.without_vnni import judge_without_vnni
from kinglet.evidence.bootstrap import Interval
from kinglet.reporting import silent
from kinglet.runtime.preprocessing import Preprocessing
from tests.unit.adoption.foreign_models import LEVELS, SIZE, brightness_classifier

GOOD, BAD = (Verdict(Interval(value, value, value), 0.003, 6000) for value in (0.0, -0.1))


def candidate(divergence: float) -> Candidate:
    return Candidate(onnx.ModelProto(), Variant("minmax", 8, (), 1.0, divergence), onnx.ModelProto(), {})


def bench(is_good) -> Bench:
    """A bench whose judgement needs only the divergence; a candidate's model carries it as its name."""
    fields = dict.fromkeys(Bench.__dataclass_fields__)
    fields["verdict"] = lambda model: GOOD if is_good(float(model.doc_string)) else BAD
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


@pytest.mark.parametrize(
    ("divergences", "passing", "kept", "last"),
    [
        # Layers in float bring the score back, though the answers as a whole are further away.
        ([0.5, 0.6], {0.6}, [True, True], 0.6),
        # And are not kept where they bring nothing back and nothing nearer.
        ([0.5, 0.6], set(), [True, False], 0.5),
        # A correction that comes nearer does not take the place of a model that passes.
        ([0.5, 0.4], {0.5}, [True, False], 0.5),
    ],
)
def test_what_passes_the_guard_is_kept_before_what_is_nearer(divergences, passing, kept, last):
    before, after = divergences
    best, verdict, steps = climb(
        named(before), bench(passing.__contains__), steps_that_make({BIAS_CORRECTION: after}, [])
    )
    assert [step["kept"] for step in steps] == kept
    assert [step["within_tolerance"] for step in steps] == [divergence in passing for divergence in divergences]
    assert (best.variant.divergence, verdict) == (last, GOOD if last in passing else BAD)


@pytest.fixture(scope="module")
def real_bench() -> Bench:
    """A bench with a real model, of images of four levels of brightness."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) % len(LEVELS)
    levels = np.array(LEVELS)[labels] + generator.normal(0, 15, 120)
    packed = generator.normal(levels[:, None, None, None], 9, (120, SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)
    parts = (LabelledRows(packed, rows, labels[rows]) for rows in (np.arange(60), np.arange(60, 120)))
    preprocessing = Preprocessing(SIZE, 3, "stretch", (0.5,) * 3, (0.5,) * 3)
    model = adopt(brightness_classifier(), "model.onnx")
    calibration, choice = parts
    judge = ClassificationJudge(model, choice, preprocessing)
    settings = Settings(["minmax"], [8], 0.0, 1)
    return open_bench("bright", model, calibration.images, judge, preprocessing, settings, silent, silent_warning)


def silent_warning(sentence: str) -> None:
    pytest.fail(sentence)


@pytest.mark.parametrize("change", [-1.0, 1.0])
@pytest.mark.parametrize("make", [lambda item, bench: made_from(bench.model, item, bench), rounded])
def test_a_correction_is_kept_only_where_it_brings_the_model_nearer(real_bench, monkeypatch, change, make):
    def corrected(item, _):
        variant = replace(item.variant, divergence=item.variant.divergence + change)
        return replace(item, variant=variant, is_corrected=True)

    start, tried = calibrated(real_bench)
    assert (len(tried), 0 < start.variant.divergence < 0.1) == (1, True)
    monkeypatch.setattr(ladder, "corrected", corrected)
    assert make(start, real_bench).is_corrected == (change < 0)


def test_a_bench_judges_by_the_answers_of_the_model_that_it_was_opened_with(real_bench):
    assert real_bench.verdict(real_bench.model).difference.value == 0
    assert real_bench.verdict(real_bench.model).n_images == 60
    assert real_bench.score(real_bench.model) == (1.0, 0.0)
    assert real_bench.quality(real_bench.model) == real_bench.reference_quality > 0.9


def test_without_vnni_a_variant_is_rounded_and_in_float_where_the_candidate_is(real_bench):
    spared, last = layers = weighted_layers(real_bench.model)
    start, _ = calibrated(real_bench)
    variant = replace(start.variant, float_layers=(spared,))
    candidate = scored(replace(start, variant=variant, is_rounded=True, is_corrected=True), real_bench)

    def made(bits: int) -> onnx.ModelProto:
        return quantize_static(candidate.source, candidate.histograms, variant.method, bits, variant.float_layers)

    candidate = replace(candidate, quantized=finished_like(candidate, made(8), real_bench))
    # Good enough once no layer can saturate.
    strict = replace(
        real_bench, quality_without_vnni=lambda model: (float(not Emulator(model).layers_at_risk), Counter({last: 1}))
    )
    notes, model = judge_without_vnni(candidate, strict)
    assert notes["variant"]["layers"] == tuple(layers)
    assert model == finished_like(candidate, made(7), real_bench) != made(7)
