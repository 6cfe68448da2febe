"""The steps of quantization, and where they stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from kinglet.atomic import read_json
from kinglet.compression.guard import Verdict
from kinglet.compression.quantization import Variant
from kinglet.evidence.bootstrap import Interval
from tasks import quantize
from tasks.models import save_model
from tasks.quantize import BIAS_CORRECTION, STEPS, Bench, Candidate, climb
from tests.unit.models.small_networks import bright_quadrants, residual_cnn
from tests.unit.tasks.small_project import parameters, write_data

GOOD, BAD = (Verdict(Interval(value, value, value), 0.003, 6000) for value in (0.0, -0.1))


def candidate(divergence: float) -> Candidate:
    return Candidate(onnx.ModelProto(), Variant("minmax", 8, (), 1.0, divergence), onnx.ModelProto(), {})


def bench(is_good) -> Bench:
    """A bench whose judgement needs only the divergence; a candidate's model carries it as its name."""
    fields = dict.fromkeys(Bench.__dataclass_fields__)
    fields["judge"] = lambda model: GOOD if is_good(float(model.doc_string)) else BAD
    fields["report"] = lambda *_: None
    return Bench(**fields)


def with_steps(monkeypatch, made: dict[str, float | None]) -> list[str]:
    """Replace the steps by ones that make models of these divergences; return the list of those taken."""
    taken: list[str] = []

    def step_of(name):
        def step(given, _):
            taken.append(name)
            return None if made[name] is None else named(made[name])

        return step

    monkeypatch.setattr(quantize, "STEPS", {name: step_of(name) for name in made})
    return taken


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
def test_steps_are_taken_until_the_guard_lets_the_model_pass(monkeypatch, limit, made, taken, kept, last):
    found = with_steps(monkeypatch, made)
    best, verdict, steps = climb(named(0.5), bench(lambda divergence: divergence <= limit))
    assert found == list(made)[:taken]
    assert [step["kept"] for step in steps] == kept
    assert best.variant.divergence == last
    assert verdict is (GOOD if last <= limit else BAD)


def test_the_steps_are_those_of_the_documentation_in_its_order():
    text = Path("docs/compression.md").read_text(encoding="utf-8").lower()
    places = [text.index(f"{name}.**") for name in STEPS]
    assert places == sorted(places)


@pytest.fixture
def project(tmp_path, monkeypatch):
    images = bright_quadrants(120, (16,), seed=1)
    splits = np.array(["train"] * 8 + ["validation", "test"])[np.arange(120) % 10]
    write_data(tmp_path, images.packed, images.labels, splits, ["a", "b", "c", "d"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quantize, "prepare_training", torch.manual_seed)  # what it sets would outlive the test
    facts = {"mean": [0.45] * 3, "std": [0.25] * 3, "classes": ["a", "b", "c", "d"], "notes": {}}
    folder = Path("artifacts/finetune/teacher")
    save_model(folder, residual_cnn(), step="finetune", parent="", input_size=16, channels=3, fit="stretch", **facts)
    return tmp_path


def quantized(**settings: object) -> tuple[bytes, dict]:
    """Run the step; return the file and the notes that it leaves."""
    quantize.run(parameters(quantize={"calibration_images": 16, "methods": ["minmax"], "weight_bits": [8], **settings}))
    folder = Path("artifacts/quantize/teacher-int8")
    return (folder / "model.onnx").read_bytes(), read_json(folder / "model.json")["notes"]


def test_a_model_that_is_good_enough_is_left_at_the_first_steps(project):
    model, notes = quantized(tolerance=0.3)
    assert [step["step"] for step in notes["steps"]] == ["calibration", BIAS_CORRECTION]
    assert notes["guard"]["within_tolerance"]
    assert notes["guard"]["images"] == 19  # a fifth of the 96 images of the training split
    assert notes["runtime"]["unfused_layers"] == 0
    assert notes["runtime"]["conversions"] == 2
    assert quantized(tolerance=0.3) == (model, notes)


def test_all_steps_are_taken_where_nothing_is_enough_and_give_the_same_bytes_again(project, monkeypatch):
    monkeypatch.setattr(Verdict, "is_enough", False)
    settings = {"max_float_layers": 2, "qat_epochs": 0.2}
    model, notes = quantized(**settings)
    assert [step["step"] for step in notes["steps"]] == ["calibration", *STEPS]
    assert not notes["guard"]["within_tolerance"]
    divergences = [step["divergence"] for step in notes["steps"] if step["kept"]]
    assert divergences == sorted(divergences, reverse=True)
    assert notes["variant"]["divergence"] == divergences[-1]
    assert notes["runtime"]["float_layers"] == len(notes["variant"]["float_layers"])
    assert quantized(**settings) == (model, notes)
