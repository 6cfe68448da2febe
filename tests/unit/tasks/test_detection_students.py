"""The step distill where images have boxes: small real trainings of students on pretrained backbones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from kinglet.atomic import read_json
from kinglet.models.registry import pretrained_detector
from tasks import detection_training, distill, prune, quantize
from tasks.artifacts import DISTILL, FINETUNE, PRUNE, QUANTIZE, SOURCE_FACTS, read_card
from tasks.chapters.settings import settings_rows
from tasks.image_distill import recipe_of_student
from tasks.image_networks import IMAGE_NETWORKS
from tasks.models import load_model, save_model
from tasks.parameters import Parameters
from tests.unit.models.test_detector import lively, small_detector
from tests.unit.tasks.killed_training import assert_it_goes_on
from tests.unit.tasks.test_detection_pruning import CUT, teacher
from tests.unit.tasks.test_detection_training import CLASSES, SIZE, project, settings

__all__ = ["project", "teacher"]

SMALL, CONTROL = DISTILL / "small", DISTILL / "small-untaught"
TAUGHT = {"students": {"small": {"backbone": "mobilenet-v2"}}, "epochs": 1, "batch_size": 4, "learning_rate": 0.002}


def start_from(monkeypatch: pytest.MonkeyPatch, pretrained: Any) -> None:
    networks = replace(IMAGE_NETWORKS["detection"], pretrained=pretrained)
    monkeypatch.setitem(IMAGE_NETWORKS, "detection", networks)


@pytest.fixture
def taught(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a small detector as its teacher, whose students are small detectors too."""
    monkeypatch.setattr(distill, "prepare_training", torch.manual_seed)  # what it sets would outlive the test
    start_from(monkeypatch, lambda _, channels, n, seed: (small_detector(n, channels), {}))
    facts = read_json(SOURCE_FACTS)
    facts["input_sizes"]["students"] = {"small": SIZE}
    SOURCE_FACTS.write_text(json.dumps(facts))
    return teacher


def teaching(**changes: Any) -> Parameters:
    values = settings().model_dump(exclude_unset=True)
    return Parameters.model_validate({**values, "distill": {**TAUGHT, **changes}})


def save_teacher(surer: float = 0.0, input_size: int = SIZE) -> None:
    """Put another teacher in the place of the project's. surer: by so much in all its logits."""
    network = lively(small_detector(len(CLASSES)))
    with torch.no_grad():
        for convolution in network.head.classes:  # type: ignore[union-attr]
            convolution.bias.add_(surer)
    facts: dict[str, Any] = {"mean": [0.5] * 3, "std": [0.25] * 3, "classes": CLASSES, "problem": "detection"}
    folder = FINETUNE / "teacher"
    save_model(
        folder, network, step="finetune", parent="", input_size=input_size, channels=3, fit="pad", notes={}, **facts
    )


def content(folder: Path) -> bytes:
    return (folder / "model.onnx").read_bytes()


def test_a_student_starts_from_its_backbones_weights_and_is_a_detector_like_its_teacher(
    teacher: Path, taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_from(monkeypatch, pretrained_detector)
    # So short that the backbone is still about where it began.
    distill.run(teaching(epochs=0.1, learning_rate=1e-6))
    network, card = load_model(SMALL)
    begun, architecture = pretrained_detector("mobilenet-v2", 3, len(CLASSES), 0)
    assert (card.architecture, card.notes["backbone"]) == (architecture, "mobilenet-v2")
    filters = [one.backbone.blocks[3].state_dict() for one in (network, begun)]
    for name, values in filters[0].items():
        if name.endswith("weight"):
            torch.testing.assert_close(values, filters[1][name], atol=1e-4, rtol=0)
    session = onnxruntime.InferenceSession(content(SMALL), providers=["CPUExecutionProvider"])
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(images)
    for answer, wanted in zip(session.run(["logits", "boxes"], {"images": images.numpy()}), expected, strict=True):
        np.testing.assert_allclose(answer, wanted.numpy(), atol=1e-3, rtol=1e-3)


def test_a_student_and_its_control_differ_by_the_teacher_alone_and_are_the_same_every_time(taught: Path) -> None:
    distill.run(teaching(epochs=2, controls=["small"]))
    student, control = read_card(SMALL), read_card(CONTROL)
    assert (student.parent, student.control_for) == ("teacher", "")
    assert (control.parent, control.control_for) == ("", "small")
    for card in (student, control):
        assert (card.problem, card.step, card.classes) == ("detection", "distill", CLASSES)
        assert (card.input_size, card.fit, card.mean) == (SIZE, "pad", [0.5] * 3)
        assert [list(epoch) for epoch in card.notes["history"]] == [["epoch", "input_size", "loss", "map_50"]] * 2
        assert "teacher_map_50" not in card.notes
    contents = content(SMALL), content(CONTROL)
    assert contents[0] != contents[1]
    distill.run(teaching(epochs=2, controls=["small"]))
    assert (content(SMALL), content(CONTROL)) == contents
    assert not list(Path(".kinglet").rglob("state.pt"))
    save_teacher(surer=1.0)
    distill.run(teaching(epochs=2, controls=["small"]))
    assert content(SMALL) != contents[0]
    assert content(CONTROL) == contents[1]


def test_without_the_teachers_share_a_student_is_its_control(taught: Path) -> None:
    distill.run(teaching(soft_weight=0, controls=["small"]))
    student, control = load_model(SMALL)[0].state_dict(), load_model(CONTROL)[0].state_dict()
    assert all(torch.equal(values, control[name]) for name, values in student.items())


def test_a_training_goes_on_where_it_was_killed(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_it_goes_on(lambda: distill.run(teaching(epochs=2)), SMALL / "model.onnx", monkeypatch)


def test_a_student_takes_smaller_images_than_its_teacher_which_is_said_to_know_less_of_them(
    taught: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_teacher(input_size=96)
    distill.run(teaching(controls=["small"]))
    card = read_card(SMALL)
    assert card.input_size == SIZE
    assert 0 <= card.notes["teacher_map_50"] <= 1
    said = f"note: at the {SIZE} pixels of small its teacher has a map_50 of {card.notes['teacher_map_50']:.4f} on val"
    assert said in capsys.readouterr().err
    assert "teacher_map_50" not in read_card(CONTROL).notes


def test_a_student_is_cut_trained_back_and_brought_to_int8_under_its_own_name(taught: Path) -> None:
    values = teaching().model_dump(exclude_unset=True)
    cut = {**CUT, "models": ["small"], "epochs": 1}
    quantized = {"qat_epochs": 0, "methods": ["minmax"], "weight_bits": [8], "tolerance": 0.5, "models": ["small"]}
    given = Parameters.model_validate({**values, "prune": cut, "quantize": quantized})
    for step in (distill, prune, quantize):
        step.run(given)
    assert (read_card(PRUNE / "small-pruned").parent, read_card(PRUNE / "small-pruned").step) == ("small", "prune")
    assert (read_card(QUANTIZE / "small-int8").parent, read_card(QUANTIZE / "small-int8").problem) == (
        "small",
        "detection",
    )


def test_the_report_shows_of_a_students_settings_those_that_it_has() -> None:
    rows = dict(settings_rows(teaching())["distill"])
    assert rows["students"] == "small input_size auto; backbone mobilenet-v2"


def test_without_students_nothing_is_read_or_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(distill, "prepare_training", torch.manual_seed)
    distill.run(teaching(students={}))
    assert list(tmp_path.rglob("*")) == [tmp_path / "artifacts", tmp_path / DISTILL]


def test_a_student_is_trained_on_the_teachers_pictures_as_distill_says() -> None:
    values = settings(augment=["flip"], layer_decay=0.9, low_resolution_share=0.4).model_dump(exclude_unset=True)
    own = {"epochs": 7, "learning_rate": 0.003, "weight_decay": 0.01, "ema_decay": 0.9, "warmup": 0.1, "patience": 5}
    recipe = recipe_of_student(Parameters.model_validate({**values, "distill": {**TAUGHT, **own}}), 320, 100)
    assert recipe.phases == ((7, 320),)
    assert (recipe.augment, recipe.layer_decay, recipe.views) == (("flip",), 0.9, None)
    assert [getattr(recipe, name) for name in own if name != "epochs"] == [
        own[name] for name in own if name != "epochs"
    ]
    assert recipe.batch_size == 4


def test_a_training_of_automatic_length_passes_as_many_pixels_as_the_teachers() -> None:
    few, many, small = (
        epochs * n * size**2
        for n, size in ((205, 416), (1000, 416), (205, 320))
        for (epochs, _) in recipe_of_student(teaching(epochs="auto"), size, n).phases
    )
    assert few == pytest.approx(many, rel=0.05) == pytest.approx(small, rel=0.05)
    assert few == pytest.approx(detection_training.BUDGET.pixels, rel=0.05)
