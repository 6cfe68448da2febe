"""The steps of quantization, and where they stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper

from kinglet.atomic import read_json
from kinglet.compression.guard import Verdict
from kinglet.compression.ladder import BIAS_CORRECTION, STEPS
from kinglet.compression.stored_weights import Stored
from tasks import quantize, stored_weights
from tasks.artifacts import FINETUNE, PRUNE, TEACHER, read_card, write_card
from tests.unit.tasks.small_project import build_training_project, parameters

ALL_STEPS = (*STEPS, quantize.QUANTIZATION_AWARE_TRAINING)


def test_the_steps_are_those_of_the_documentation_in_its_order():
    text = Path("docs/compression.md").read_text(encoding="utf-8").lower()
    places = [text.index(f"{name}.**") for name in ALL_STEPS]
    assert places == sorted(places)


@pytest.fixture
def project(tmp_path, monkeypatch):
    build_training_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quantize, "prepare_training", torch.manual_seed)  # what it sets would outlive the test
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
    assert notes["runtime"]["conversions"] == 1  # the pixels need none
    assert quantized(tolerance=0.3) == (model, notes)


@pytest.mark.parametrize("qat_steps", ["averaged", "learned"])
def test_all_steps_are_taken_where_nothing_is_enough_and_give_the_same_bytes_again(project, monkeypatch, qat_steps):
    monkeypatch.setattr(Verdict, "is_enough", False)
    settings = {"max_float_layers": 2, "qat_epochs": 0.2, "qat_steps": qat_steps}
    model, notes = quantized(**settings)
    assert [step["step"] for step in notes["steps"]] == ["calibration", *ALL_STEPS]
    assert not notes["guard"]["within_tolerance"]
    divergences = [step["divergence"] for step in notes["steps"] if step["kept"]]
    assert divergences == sorted(divergences, reverse=True)
    assert notes["variant"]["divergence"] == divergences[-1]
    assert notes["runtime"]["float_layers"] == len(notes["variant"]["float_layers"])
    assert quantized(**settings) == (model, notes)


def test_a_control_is_brought_to_int8_only_where_it_is_asked_for(project, monkeypatch):
    card = read_card(FINETUNE / TEACHER)
    for name, control_for in (("student", ""), ("student-dense", "student-pruned")):
        write_card(PRUNE / name, replace(card, name=name, step="prune", control_for=control_for))
    seen = []
    monkeypatch.setattr(quantize, "quantize_model", lambda folder, *_: seen.append(folder.name))
    quantize.run(parameters())
    assert seen == ["teacher", "student"]
    seen.clear()
    quantize.run(parameters(quantize={"models": ["student-dense"]}))
    assert seen == ["student-dense"]


def test_a_file_that_is_to_take_floats_takes_floats(project):
    model, notes = quantized(tolerance=0.3, uint8_input=False)
    assert notes["runtime"]["conversions"] == 2
    card = read_card(Path("artifacts/quantize/teacher-int8"))
    assert (card.takes_pixels, card.mean, card.std) == (False, [0.45] * 3, [0.25] * 3)
    assert model != quantized(tolerance=0.3)[0]
    assert read_card(Path("artifacts/quantize/teacher-int8")).takes_pixels


def test_float_models_with_smaller_weights_lie_beside_the_int8_model(project):
    quantized(tolerance=0.3, stored_weights=["fp16", "int8"])
    whole = (FINETUNE / TEACHER / "model.onnx").stat().st_size
    for storage, parts in (("fp16", 2), ("int8", 4)):
        folder = Path(f"artifacts/quantize/teacher-{storage}-weights")
        card = read_card(folder)
        assert (card.precision, card.parent, card.step) == (f"{storage} weights", "teacher", "quantize")
        assert not card.takes_pixels
        assert card.notes["guard"]["within_tolerance"]
        assert (folder / "model.onnx").stat().st_size < 1.3 * whole / parts


def test_smaller_weights_that_lose_too_much_are_not_kept(project, monkeypatch, capsys):
    def ruined(model, storage):
        broken = onnx.ModelProto()
        broken.CopyFrom(model)
        for item in broken.graph.initializer:
            item.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(item), item.name))
        return Stored(broken, 1, [])

    monkeypatch.setattr(stored_weights, "store_weights", ruined)
    quantized(tolerance=0.01, stored_weights=["bf16"])
    assert not Path("artifacts/quantize/teacher-bf16-weights").exists()
    assert "teacher-bf16-weights is not kept: accuracy -" in capsys.readouterr().err
