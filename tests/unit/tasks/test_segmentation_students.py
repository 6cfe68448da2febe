"""The steps distill and prune where images have masks: small real trainings beside a small segmenter."""

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
from kinglet.compression.latency import Latency
from kinglet.errors import KingletError
from kinglet.models.registry import pretrained_segmenter
from tasks import distill, prune, quantize, segmentation_training
from tasks.artifacts import DISTILL, FINETUNE, PRUNE, QUANTIZE, SOURCE_FACTS, read_card
from tasks.image_distill import recipe_of_student
from tasks.image_networks import IMAGE_NETWORKS
from tasks.models import load_model, save_model
from tasks.parameters import Parameters
from tests.unit.models.segmenter_files import lively_segmenter, small_segmenter
from tests.unit.tasks.killed_training import assert_it_goes_on
from tests.unit.tasks.test_segmentation_training import CLASSES, PARTS, SIZE, project, settings

__all__ = ["project"]

TEACHER, SMALL, CONTROL = FINETUNE / "teacher", DISTILL / "small", DISTILL / "small-untaught"
TAUGHT = {"students": {"small": {"backbone": "mobilenet-v2"}}, "epochs": 0.5, "batch_size": 32, "learning_rate": 0.005}
CUT = {"channel_share": 0.5, "round_to": 2, "baseline": "none", "epochs": 0.5, "batch_size": 32}
QUANTIZED = {"qat_epochs": 0, "methods": ["minmax"], "weight_bits": [8], "tolerance": 0.5}


def start_from(monkeypatch: pytest.MonkeyPatch, pretrained: Any) -> None:
    monkeypatch.setitem(IMAGE_NETWORKS, "segmentation", replace(IMAGE_NETWORKS["segmentation"], pretrained=pretrained))


@pytest.fixture
def taught(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a small segmenter as its teacher, whose students are small segmenters too.

    Networks take as long as their decoder is wide.
    """
    for step in (distill, prune, quantize):
        monkeypatch.setattr(step, "prepare_training", torch.manual_seed)  # what it sets would outlive the test
    start_from(monkeypatch, lambda _, channels, n, seed: (small_segmenter(n, channels), {}))
    monkeypatch.setattr(prune, "untrained_latencies", timed_by_width)
    facts = read_json(SOURCE_FACTS)
    facts["input_sizes"]["students"] = {"small": SIZE}
    SOURCE_FACTS.write_text(json.dumps(facts))
    save_teacher()
    return project


def timed_by_width(subjects: Any, *_: Any) -> list[dict[str, Any]]:
    times = [network.decoder.lateral[0][0].out_channels for network, _ in subjects]
    return [{"fp32": Latency(time, time, time, "fp32")} for time in times]


def save_teacher(surer: float = 1.0, input_size: int = SIZE) -> None:
    """Put a lively segmenter in the place of the teacher. surer: its logits are so many times as large."""
    network = lively_segmenter(len(CLASSES), 1)
    with torch.no_grad():
        network.classes.weight.mul_(surer)
    facts: dict[str, Any] = {"mean": [0.5], "std": [0.25], "classes": CLASSES, "problem": "segmentation", "notes": {}}
    save_model(TEACHER, network, step="finetune", parent="", input_size=input_size, channels=1, fit="pad", **facts)


def teaching(**changes: Any) -> Parameters:
    values = settings().model_dump(exclude_unset=True)
    return Parameters.model_validate({**values, "distill": {**TAUGHT, **changes}, "quantize": QUANTIZED})


def cutting(**changes: Any) -> Parameters:
    values = teaching().model_dump(exclude_unset=True)
    return Parameters.model_validate({**values, "prune": {**CUT, "models": ["teacher"], **changes}})


def content(folder: Path) -> bytes:
    return (folder / "model.onnx").read_bytes()


def test_a_student_starts_from_its_backbones_weights_and_is_a_segmenter_like_its_teacher(
    taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_from(monkeypatch, pretrained_segmenter)
    # So short that the backbone is still about where it began.
    distill.run(teaching(epochs=0.1, batch_size=8, learning_rate=1e-6))
    network, card = load_model(SMALL)
    begun, architecture = pretrained_segmenter("mobilenet-v2", 1, len(CLASSES), 0)
    assert (card.architecture, card.notes["backbone"]) == (architecture, "mobilenet-v2")
    filters = [one.backbone.blocks[3].state_dict() for one in (network, begun)]
    for name, values in filters[0].items():
        if name.endswith("weight"):
            torch.testing.assert_close(values, filters[1][name], atol=1e-4, rtol=0)
    session = onnxruntime.InferenceSession(content(SMALL), providers=["CPUExecutionProvider"])
    images = torch.randn(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(images).numpy()
    np.testing.assert_allclose(session.run(["logits"], {"images": images.numpy()})[0], expected, atol=1e-3, rtol=1e-3)


def test_a_student_and_its_control_differ_by_the_teacher_alone_and_are_the_same_every_time(taught: Path) -> None:
    distill.run(teaching(controls=["small"]))
    student, control = read_card(SMALL), read_card(CONTROL)
    assert (student.parent, student.control_for) == ("teacher", "")
    assert (control.parent, control.control_for) == ("", "small")
    for card in (student, control):
        assert (card.problem, card.step, card.classes) == ("segmentation", "distill", CLASSES)
        assert (card.input_size, card.fit, card.mean) == (SIZE, "pad", [0.5])
        assert [list(epoch) for epoch in card.notes["history"]] == [["epoch", "input_size", "loss", "miou"]]
        assert "teacher_miou" not in card.notes
    contents = content(SMALL), content(CONTROL)
    assert contents[0] != contents[1]
    distill.run(teaching(controls=["small"]))
    assert (content(SMALL), content(CONTROL)) == contents
    assert not list(Path(".kinglet").rglob("state.pt"))
    save_teacher(surer=2.0)
    distill.run(teaching(controls=["small"]))
    assert content(SMALL) != contents[0]
    assert content(CONTROL) == contents[1]
    distill.run(teaching(controls=["small"], soft_weight=0))
    student_weights, control_weights = (load_model(folder)[0].state_dict() for folder in (SMALL, CONTROL))
    assert all(torch.equal(values, control_weights[name]) for name, values in student_weights.items())


def test_a_training_goes_on_where_it_was_killed(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_it_goes_on(lambda: distill.run(teaching(epochs=1.5)), SMALL / "model.onnx", monkeypatch)


def test_a_student_takes_smaller_images_than_its_teacher_which_is_said_to_know_less_of_them(
    taught: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_teacher(input_size=96)
    distill.run(teaching(controls=["small"]))
    card = read_card(SMALL)
    assert card.input_size == SIZE
    assert 0 < card.notes["teacher_miou"] < 1
    said = f"note: at the {SIZE} pixels of small its teacher has a miou of {card.notes['teacher_miou']:.4f} on val"
    assert said in capsys.readouterr().err
    assert "teacher_miou" not in read_card(CONTROL).notes


def test_a_student_is_cut_trained_back_and_brought_to_int8_under_its_own_name(taught: Path) -> None:
    given = cutting(models=["small"])
    for step in (distill, prune, quantize):
        step.run(given)
    cut, brought = read_card(PRUNE / "small-pruned"), read_card(QUANTIZE / "small-pruned-int8")
    assert (cut.parent, cut.step, cut.problem) == ("small", "prune", "segmentation")
    assert (brought.parent, brought.precision, brought.problem) == ("small-pruned", "int8", "segmentation")
    assert read_card(QUANTIZE / "small-int8").parent == "small"


def test_a_student_is_trained_on_the_teachers_windows_and_images_as_distill_says() -> None:
    finetune = {"augment": ["flip"], "layer_decay": 0.9, "low_resolution_share": 0.5}
    values = settings(**finetune).model_dump(exclude_unset=True)
    own = {"epochs": 8, "learning_rate": 0.003, "weight_decay": 0.01, "ema_decay": 0.9, "warmup": 0.1, "patience": 5}
    recipe = recipe_of_student(Parameters.model_validate({**values, "distill": {**TAUGHT, **own}}), 384, 100)
    assert recipe.phases == ((4, 192), (4, 384))
    assert (recipe.augment, recipe.layer_decay, recipe.batch_size) == (("flip",), 0.9, 32)
    assert [getattr(recipe, name) for name in own if name != "epochs"] == [
        own[name] for name in own if name != "epochs"
    ]


def test_a_training_of_automatic_length_passes_as_many_pixels_as_the_teachers() -> None:
    for n, size in ((200, 256), (1000, 192)):
        recipe = recipe_of_student(teaching(epochs="auto"), size, n)
        assert sum(epochs * n * edge**2 for epochs, edge in recipe.phases) == pytest.approx(
            segmentation_training.BUDGET.pixels, rel=0.01
        )


def test_the_loss_of_a_cut_is_of_the_masks_of_the_very_images(taught: Path) -> None:
    whole = prune.WAYS["segmentation"].read(TEACHER, cutting(batch_size=3))
    assert [len(inputs) for inputs, _ in whole.batches] == [3, 3, 2]
    packed, masks = (np.load(f"artifacts/ingest/{name}_{SIZE}.npy") for name in ("images", "masks"))
    shown = np.rint((torch.cat([inputs for inputs, _ in whole.batches]).numpy() * 0.25 + 0.5) * 255).astype(np.uint8)
    places = [int(np.flatnonzero((packed[:, ..., 0] == image).all((1, 2)))[0]) for image in shown[:, 0]]
    assert sorted(places) == list(range(PARTS.count("train")))
    assert torch.equal(torch.cat([targets for _, targets in whole.batches]), torch.from_numpy(masks[places]))
    targets = whole.batches[0][1]
    truth = 20.0 * (targets[:, None] == torch.arange(2).view(1, -1, 1, 1))
    # What is right and sure costs the smoothing of the labels alone.
    assert float(whole.loss(truth, targets)) == pytest.approx(0.05 * 20 / 2, rel=1e-3)


def test_a_rival_of_a_segmenter_is_refused_before_anything_is_cut(taught: Path) -> None:
    with pytest.raises(KingletError, match="baseline is resolution, but teacher is a segmenter, for which no rival"):
        prune.run(cutting(baseline="resolution"))
    assert not PRUNE.exists()


def test_a_segmenter_is_pruned_trained_back_and_quantized_the_same_every_time(taught: Path) -> None:
    pruned, brought = PRUNE / "teacher-pruned", QUANTIZE / "teacher-pruned-int8"
    prune.run(cutting())
    network, card = load_model(pruned)
    assert (card.problem, card.parent, card.step, card.classes) == ("segmentation", "teacher", "prune", CLASSES)
    assert card.architecture["spec"]["widths"] == [4, 4, 6, 8, 8]
    assert read_card(TEACHER).architecture["spec"]["widths"] == [8, 8, 12, 16, 16]
    assert card.notes["channel_share"] == 0.5
    assert [list(epoch) for epoch in card.notes["history"]] == [["epoch", "input_size", "loss", "miou"]]
    assert read_json(PRUNE / "refused.json") == {}
    assert read_json(PRUNE / "unrivalled.json") == {"teacher": "teacher-pruned has no rival: prune.baseline is none."}
    session = onnxruntime.InferenceSession(content(pruned), providers=["CPUExecutionProvider"])
    images = torch.randn(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(images).numpy()
    np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], expected, atol=1e-4, rtol=1e-4)
    quantize.run(cutting())
    made = read_card(brought)
    assert (made.parent, made.problem) == ("teacher-pruned", "segmentation")
    assert made.notes["guard"]["images"] == PARTS.count("validation")
    contents = content(pruned), content(brought)
    prune.run(cutting())
    quantize.run(cutting())
    assert (content(pruned), content(brought)) == contents
