"""Losses of segmenters, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from kinglet.runtime.segmentation import VOID
from kinglet.training.segmentation_losses import (
    balancing_weights,
    dice_loss,
    in_classes,
    pixel_loss,
    segmentation_loss,
)

# One row of four pixels: of class 0, 1, 1 and void, and what is said of them.
MASK = torch.tensor([[[0, 1, 1, VOID]]], dtype=torch.uint8)
TRUTH = in_classes(MASK, 2)
PROBABILITIES = torch.tensor([0.8, 0.6, 0.1, 0.5])  # of class 0
LOGITS = torch.stack([PROBABILITIES.log(), (1 - PROBABILITIES).log()])[None, :, None, :]


def test_the_cross_entropy_is_the_mean_over_known_pixels() -> None:
    expected = -(math.log(0.8) + math.log(0.4) + math.log(0.9)) / 3
    assert pixel_loss(LOGITS, TRUTH, None, 0.0).item() == pytest.approx(expected, rel=1e-5)


def test_the_cross_entropy_is_torchs_own() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 4, generator=generator)
    masks = torch.randint(3, (2, 5, 4), generator=generator)
    masks[0, :2] = VOID
    weights = torch.tensor([0.5, 1.0, 4.0])
    expected = functional.cross_entropy(logits, masks, weights, ignore_index=VOID)
    torch.testing.assert_close(pixel_loss(logits, in_classes(masks, 3), weights, 0.0), expected)


def test_a_weighted_class_counts_more() -> None:
    expected = -(3 * math.log(0.8) + math.log(0.4) + math.log(0.9)) / 5
    assert pixel_loss(LOGITS, TRUTH, torch.tensor([3.0, 1.0]), 0.0).item() == pytest.approx(expected, rel=1e-5)


def test_smoothed_labels_give_a_share_to_all_classes() -> None:
    wanted = [(0.95, 0.8), (0.05, 0.6), (0.05, 0.1)]
    expected = -sum(share * math.log(p) + (1 - share) * math.log(1 - p) for share, p in wanted) / 3
    assert pixel_loss(LOGITS, TRUTH, None, 0.1).item() == pytest.approx(expected, rel=1e-5)


def test_dice_is_the_overlap_of_probabilities_with_the_known_pixels_of_each_class() -> None:
    of_first = 2 * 0.8 / (0.8 + 0.6 + 0.1 + 1)
    of_second = 2 * (0.4 + 0.9) / (0.2 + 0.4 + 0.9 + 2)
    assert dice_loss(LOGITS, TRUTH).item() == pytest.approx(1 - (of_first + of_second) / 2, rel=1e-5)


def test_a_class_that_no_pixel_shows_has_no_dice() -> None:
    logits = torch.cat([LOGITS, torch.full((1, 1, 1, 4), -30.0)], 1)
    assert dice_loss(logits, in_classes(MASK, 3)).item() == pytest.approx(dice_loss(LOGITS, TRUTH).item(), rel=1e-5)


def test_a_batch_of_void_teaches_nothing() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    value = segmentation_loss()(logits, torch.full((2, 8, 8), VOID, dtype=torch.uint8))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_coarse_answers_are_enlarged_to_the_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    masks = torch.randint(3, (2, 8, 8), generator=generator).to(torch.uint8)
    enlarged = functional.interpolate(logits, (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(segmentation_loss()(logits, masks), segmentation_loss()(enlarged, masks))


def test_right_and_sure_answers_cost_hardly_anything() -> None:
    masks = torch.randint(3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    logits = 20.0 * functional.one_hot(masks, 3).permute(0, 3, 1, 2)
    assert segmentation_loss()(logits, masks).item() < 1e-4


def test_rare_classes_count_by_the_root_of_their_rarity() -> None:
    weights = balancing_weights(np.array([900, 100 - 9, 9, 0]))
    assert weights is not None
    assert weights[3] == 0
    assert (weights[2] / weights[0]).item() == pytest.approx(10.0, rel=1e-5)
    shares = torch.tensor([0.9, 0.091, 0.009, 0.0])
    assert (weights * shares).sum().item() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("counts", [[100, 11], [5, 5, 0], [0, 0]])
def test_classes_about_as_frequent_are_not_weighted(counts: list[int]) -> None:
    assert balancing_weights(np.array(counts)) is None
