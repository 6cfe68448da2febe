"""Fine-tuning of detectors and segmenters on a few labelled images: what learns, what stays, and that it helps."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from kinglet.adaptation.batch_norm import batch_norms
from kinglet.adaptation.dense_answers import fine_tune_detector, fine_tune_segmenter
from kinglet.adaptation.training import AdaptationRecipe
from kinglet.data.batches import gather, standardize
from kinglet.data.boxed_images import BoxedImages
from kinglet.data.packed_masks import MaskedImages
from kinglet.errors import KingletError
from kinglet.models.detector import places
from kinglet.training.detection_losses import detection_loss
from kinglet.training.segmentation_losses import segmentation_loss
from tests.unit.data import painted_rectangles, test_mask_augmentation
from tests.unit.models.segmenter_files import lively_segmenter
from tests.unit.models.test_detector import lively, small_detector

CPU = torch.device("cpu")
RECIPE = AdaptationRecipe(epochs=6, batch_size=4, learning_rate=2e-2, ema_decay=0.9, augment=(), seed=1)
BOXED, MASKED = painted_rectangles.painted(8), test_mask_augmentation.painted(8)


def statistics_of(network: nn.Module) -> tuple[list[float], list[float]]:
    """Return mean and deviation of pixels for as many channels as a network takes."""
    channels = next(network.parameters()).shape[1]
    return [0.45] * channels, [0.25] * channels


def fine_tuned(network: nn.Module, images: BoxedImages | MaskedImages, recipe: AdaptationRecipe) -> nn.Module:
    if isinstance(images, BoxedImages):
        return fine_tune_detector(network, images, *statistics_of(network), recipe, CPU)
    return fine_tune_segmenter(network, images, 2, *statistics_of(network), recipe, CPU)


@torch.no_grad()
def loss_of(network: nn.Module, images: BoxedImages | MaskedImages) -> float:
    outputs = network(standardize(gather(images.packed, images.rows), *statistics_of(network)))
    if isinstance(images, BoxedImages):
        return float(detection_loss(places(images.size)[0])(outputs, list(images.objects)))
    return float(segmentation_loss()(outputs, torch.from_numpy(images.masks)))


NETWORKS = pytest.mark.parametrize(
    ("network", "images"),
    [(lively(small_detector(2)), BOXED), (lively_segmenter(2, 1), MASKED)],
    ids=["detector", "segmenter"],
)


@NETWORKS
def test_what_is_wrong_of_labelled_images_falls_and_scales_and_shifts_alone_have_learnt(network, images) -> None:
    start = copy.deepcopy(network.state_dict())
    adapted = fine_tuned(network, images, RECIPE)
    assert loss_of(adapted, images) < 0.9 * loss_of(network, images)
    assert all(torch.equal(value, start[name]) for name, value in network.state_dict().items())
    norms = {name for name, part in adapted.named_modules() if part in batch_norms(adapted)}
    changed = {name for name, value in adapted.state_dict().items() if not torch.equal(value, start[name])}
    assert {name.rpartition(".")[0] for name in changed} <= norms
    assert {name.rpartition(".")[2] for name in changed} == {"weight", "bias"}
    assert not adapted.training


@NETWORKS
def test_the_same_images_teach_the_same_and_changed_ones_something_else(network, images) -> None:
    recipe = replace(RECIPE, epochs=1, augment=("flip", "crop", "color"))
    one, same = (fine_tuned(network, images, recipe).state_dict() for _ in range(2))
    other = fine_tuned(network, replace(images, packed=255 - images.packed), recipe).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


@NETWORKS
def test_a_fine_tuning_that_diverges_is_said_with_the_setting(network, images) -> None:
    with pytest.raises(KingletError, match="The adaptation diverged in epoch") as caught:
        fine_tuned(network, images, replace(RECIPE, learning_rate=1e30))
    assert "adapt.learning_rate" in caught.value.hint
