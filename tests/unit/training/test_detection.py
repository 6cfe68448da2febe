"""A small detector trained on painted rectangles finds them, and an interrupted training ends in the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kinglet.models.detector import Detector, DetectorSpec
from kinglet.models.inverted_residual import BlockSpec
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.detection import detections, fit_detector
from kinglet.training.epochs import Recipe
from kinglet.training.validation_precision import mean_average_precision
from tests.unit.data.painted_rectangles import painted

MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
CPU = torch.device("cpu")


def block(channels: int, out: int, stride: int) -> BlockSpec:
    return BlockSpec(3 * channels, out, 3, stride, True, stride == 1 and channels == out)


def network() -> Detector:
    torch.manual_seed(0)
    blocks = (block(8, 8, 2), block(8, 16, 2), block(16, 16, 2), block(16, 16, 2))
    return Detector(DetectorSpec(3, 8, blocks, 2, width=24, depth=1))


def recipe(epochs: float, augment: tuple[str, ...] = ("flip",)) -> Recipe:
    return Recipe(
        phases=((epochs, 64),),
        batch_size=16,
        learning_rate=1e-2,
        weight_decay=0.0,
        warmup=0.1,
        layer_decay=1.0,
        ema_decay=0.9,
        patience=100,
        augment=augment,
        precision="fp32",
        seed=0,
    )


def trained(epochs: float, augment: tuple[str, ...] = ("flip",), checkpoint: Checkpoint | None = None):
    return fit_detector(
        network(),
        painted(64, seed=1),
        painted(16, seed=2),
        recipe(epochs, augment),
        n_classes=2,
        mean=MEAN,
        std=STD,
        device=CPU,
        checkpoint=checkpoint,
    )


def test_a_small_detector_learns_to_find_rectangles() -> None:
    best, history = trained(25)
    losses = [epoch["loss"] for epoch in history]
    assert losses[-1] < losses[0] / 2
    assert max(epoch["map_50"] for epoch in history) > 0.8
    unseen = painted(16, seed=3)
    found = detections(best, unseen, MEAN, STD, CPU)
    assert mean_average_precision(found, unseen.objects, 2) > 0.7


class KilledError(Exception):
    pass


class DyingCheckpoint(Checkpoint):
    """Kills the training after its first state is on disk."""

    def save(self, state) -> None:
        super().save(state)
        raise KilledError


def test_a_training_that_was_killed_ends_in_the_same_weights(tmp_path: Path) -> None:
    augment = ("flip", "crop", "mosaic", "color")
    whole, history = trained(2, augment)
    with pytest.raises(KilledError):
        trained(2, augment, DyingCheckpoint(tmp_path / "checkpoint"))
    resumed, resumed_history = trained(2, augment, Checkpoint(tmp_path / "checkpoint"))
    assert resumed_history == history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
