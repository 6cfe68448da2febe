"""A small segmenter trained on painted blots finds them, and an interrupted training ends in the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kinglet.data.packed_masks import MaskedImages
from kinglet.evidence.mask_scores import mean_iou
from kinglet.models.inverted_residual import BlockSpec
from kinglet.models.segmenter import Segmenter, SegmenterSpec
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.epochs import Recipe
from kinglet.training.segmentation import confusions, fit_segmenter, times_shown
from tests.unit.data.test_mask_augmentation import painted

MEAN, STD = [0.5], [0.25]
CPU = torch.device("cpu")


def block(channels: int, out: int, stride: int) -> BlockSpec:
    return BlockSpec(2 * channels, out, 3, stride, True, stride == 1 and channels == out)


def network() -> Segmenter:
    torch.manual_seed(0)
    blocks = (block(8, 8, 1), block(8, 8, 2), block(8, 8, 2), block(8, 8, 2), block(8, 8, 2))
    return Segmenter(SegmenterSpec(1, 8, blocks, 2, widths=(8, 8, 8, 8, 8)))


def trained(epochs: float, *, checkpoint: Checkpoint | None = None, low: float = 0.0):
    recipe = Recipe(
        phases=((low, 32), (epochs, 64)) if low else ((epochs, 64),),
        batch_size=16,
        learning_rate=1e-2,
        weight_decay=0.0,
        warmup=0.1,
        layer_decay=1.0,
        ema_decay=0.9,
        patience=100,
        augment=("flip", "crop", "color"),
        precision="fp32",
        seed=0,
    )
    return fit_segmenter(
        network(),
        painted(32, seed=1),
        painted(8, seed=2),
        recipe,
        n_classes=2,
        mean=MEAN,
        std=STD,
        device=CPU,
        checkpoint=checkpoint,
    )


def test_a_trained_segmenter_finds_what_is_painted_and_keeps_its_best_epoch() -> None:
    best, history = trained(4, low=1)
    assert [entry["input_size"] for entry in history] == [32, 64, 64, 64, 64]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    validation = painted(8, seed=2)
    scored = mean_iou(confusions(best, validation, 2, MEAN, STD, CPU).sum(0))
    assert scored == pytest.approx(max(entry["miou"] for entry in history))
    assert scored > 0.8


class KilledError(Exception):
    pass


class KilledAfterTheFirstEpoch(Checkpoint):
    def save(self, state) -> None:
        super().save(state)
        raise KilledError


def test_an_interrupted_training_ends_in_the_same_weights(tmp_path: Path) -> None:
    whole, _ = trained(2)
    with pytest.raises(KilledError):
        trained(2, checkpoint=KilledAfterTheFirstEpoch(tmp_path / "state"))
    resumed, history = trained(2, checkpoint=Checkpoint(tmp_path / "state"))
    assert len(history) == 2
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_few_images_are_shown_several_times_in_an_epoch() -> None:
    assert [times_shown(n) for n in (1, 24, 127, 128, 5000)] == [128, 6, 2, 1, 1]


def test_confusions_are_counted_image_by_image() -> None:
    images = painted(3)
    whole = confusions(network(), images, 2, MEAN, STD, CPU)
    for place in range(3):
        part = MaskedImages(images.packed, images.masks, np.array([place]))
        np.testing.assert_array_equal(confusions(network(), part, 2, MEAN, STD, CPU)[0], whole[place])
    assert whole.sum((1, 2)).tolist() == [64 * 64] * 3
