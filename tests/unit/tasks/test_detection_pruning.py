"""The steps prune and quantize on a small detector: what is cut, how it is trained back, and by what int8 is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch

from kinglet.atomic import read_json
from kinglet.compression.latency import Latency
from kinglet.errors import KingletError
from tasks import prune, quantize
from tasks.artifacts import FINETUNE, PRUNE, QUANTIZE, read_card
from tasks.detection_quantize import judged_detectors
from tasks.image_prune import recovery_of
from tasks.models import load_model, save_model
from tasks.parameters import Parameters
from tasks.training_settings import Distill
from tasks.untrained_latency import PRECISIONS, untrained_latencies
from tests.unit.models.test_detector import lively, small_detector
from tests.unit.tasks.killed_training import assert_it_goes_on
from tests.unit.tasks.test_detection_training import CLASSES, PARTS, SIZE, project, settings

__all__ = ["project"]

TEACHER, PRUNED = FINETUNE / "teacher", PRUNE / "teacher-pruned"
CUT = {
    "models": ["teacher"],
    "channel_share": 0.5,
    "round_to": 2,
    "baseline": "none",
    "epochs": 1.5,
    "batch_size": 4,
}


@pytest.fixture
def teacher(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose teacher is a small detector; networks take as long as their pyramid is wide."""
    network = lively(small_detector(len(CLASSES)))
    facts: dict[str, Any] = {"mean": [0.5] * 3, "std": [0.25] * 3, "classes": CLASSES, "problem": "detection"}
    save_model(TEACHER, network, step="finetune", parent="", input_size=SIZE, channels=3, fit="pad", notes={}, **facts)

    def measure(subjects: Any, *_: Any) -> list[dict[str, Latency]]:
        times = [network.pyramid.lateral[0][0].out_channels for network, _ in subjects]
        return [{"fp32": Latency(time, time, time, "fp32")} for time in times]

    monkeypatch.setattr(prune, "untrained_latencies", measure)
    for step in (prune, quantize):
        monkeypatch.setattr(step, "prepare_training", torch.manual_seed)  # what it sets would outlive the test
    return project


def cutting(**changes: Any) -> Parameters:
    values = settings().model_dump(exclude_unset=True)
    quantized = {"qat_epochs": 0, "methods": ["minmax"], "weight_bits": [8], "tolerance": 0.5}
    return Parameters.model_validate({**values, "prune": {**CUT, **changes}, "quantize": quantized})


def test_a_detector_is_pruned_trained_back_and_quantized_the_same_every_time(teacher: Path) -> None:
    prune.run(cutting())
    network, card = load_model(PRUNED)
    assert (card.problem, card.parent, card.step, card.classes) == ("detection", "teacher", "prune", CLASSES)
    assert card.architecture["spec"]["width"] == read_card(TEACHER).architecture["spec"]["width"] // 2
    assert card.notes["channel_share"] == 0.5
    assert [list(epoch) for epoch in card.notes["history"]] == [["epoch", "input_size", "loss", "map_50"]] * 2
    assert read_json(PRUNE / "refused.json") == {}
    assert read_json(PRUNE / "unrivalled.json") == {"teacher": "teacher-pruned has no rival: prune.baseline is none."}
    session = onnxruntime.InferenceSession(PRUNED / "model.onnx", providers=["CPUExecutionProvider"])
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(images)
    for answer, wanted in zip(session.run(["logits", "boxes"], {"images": images.numpy()}), expected, strict=True):
        np.testing.assert_allclose(answer, wanted.numpy(), atol=1e-4, rtol=1e-4)
    quantize.run(cutting())
    made = read_card(QUANTIZE / "teacher-pruned-int8")
    assert (made.parent, made.problem) == ("teacher-pruned", "detection")
    assert made.notes["guard"]["images"] == PARTS.count("validation")
    contents = [(folder / "model.onnx").read_bytes() for folder in (PRUNED, QUANTIZE / "teacher-pruned-int8")]
    prune.run(cutting())
    quantize.run(cutting())
    assert [(folder / "model.onnx").read_bytes() for folder in (PRUNED, QUANTIZE / "teacher-pruned-int8")] == contents
    assert not list(Path(".kinglet").rglob("state.pt"))


def test_a_recovery_goes_on_where_it_was_killed(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_it_goes_on(lambda: prune.run(cutting()), PRUNED / "model.onnx", monkeypatch)


def test_what_the_teacher_says_has_its_share_in_the_recovery(teacher: Path) -> None:
    contents = []
    for share in (0.0, 0.7):
        prune.run(cutting(epochs=1).model_copy(update={"distill": Distill(soft_weight=share)}))
        contents.append((PRUNED / "model.onnx").read_bytes())
    assert contents[0] != contents[1]


def test_a_cut_that_is_not_faster_on_the_clock_is_refused(
    teacher: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    same = [{"fp32": Latency(4.0, 3.9, 4.1, "fp32")}] * 2
    monkeypatch.setattr(prune, "untrained_latencies", lambda *_: same)
    prune.run(cutting())
    sentence = "Without 50% of its channels teacher would be no faster: 4 ms instead of 4 ms."
    assert read_json(PRUNE / "refused.json") == {"teacher": sentence}
    assert sentence in capsys.readouterr().err
    assert not PRUNED.exists()


@pytest.mark.parametrize(
    ("changes", "said", "hint"),
    [
        ({"baseline": "resolution"}, "baseline is resolution, but teacher is a detector", "to none"),
        ({"models": ["student"]}, "prune.models names student; known: teacher", ""),
    ],
)
def test_what_cannot_be_done_to_a_detector_is_said_first(
    teacher: Path, changes: dict[str, Any], said: str, hint: str
) -> None:
    with pytest.raises(KingletError, match=said) as caught:
        prune.run(cutting(**changes))
    assert hint in (caught.value.hint or "")
    assert not PRUNE.exists()


def test_a_recovery_of_automatic_length_costs_about_the_same_for_every_data_set(teacher: Path) -> None:
    whole = prune.WAYS["detection"].read(TEACHER, cutting())
    recipe = recovery_of(whole, cutting(epochs=3, learning_rate=0.004))
    assert (recipe.phases, recipe.batch_size, recipe.learning_rate) == (((3, SIZE),), 4, 0.004)
    assert recovery_of(whole, cutting(epochs="auto")).phases == ((45, SIZE),)


def test_a_detector_is_timed_in_both_precisions_before_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINGLET_CACHE", str(tmp_path))
    images = np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
    (latencies,) = untrained_latencies([(small_detector(), images)], 1, 0)
    assert sorted(latencies) == sorted(PRECISIONS)
    assert all(0 < of.low <= of.value <= of.high for of in latencies.values())


def test_int8_detectors_are_judged_by_validation_images_and_calibrated_by_training_images(teacher: Path) -> None:
    card, parameters = read_card(TEACHER), cutting()
    calibration, judge = judged_detectors(onnx.load(TEACHER / "model.onnx"), card, parameters.quantize, 0)
    assert sorted(judge.choice.rows.tolist()) == [8, 9, 10]
    packed = np.load(f"artifacts/ingest/images_{SIZE}.npy")
    assert {image.tobytes() for image in calibration} == {image.tobytes() for image in packed[:8]}
    boxes = pd.read_parquet("artifacts/ingest/boxes.parquet")
    boxes[boxes["index"] < 8].to_parquet("artifacts/ingest/boxes.parquet")
    with pytest.raises(KingletError, match="The 3 validation images that would judge the int8 models of teacher show"):
        judged_detectors(onnx.load(TEACHER / "model.onnx"), card, parameters.quantize, 0)
