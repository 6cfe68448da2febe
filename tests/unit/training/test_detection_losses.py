"""The losses of detectors beside values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kinglet.data.boxed_images import Objects
from kinglet.training.detection_losses import BOX_WEIGHT, detection_loss, giou_loss, quality_focal_loss


@pytest.mark.parametrize(
    ("probability", "quality", "expected"),
    [
        (0.5, 0.5, 0.0),  # as good as it says: nothing to learn, though the entropy is not zero
        (0.5, 1.0, 0.25 * math.log(2)),
        (0.8, 0.0, 0.64 * -math.log(0.2)),
        (0.2, 0.6, 0.16 * -(0.6 * math.log(0.2) + 0.4 * math.log(0.8))),
    ],
)
def test_quality_focal_loss(probability: float, quality: float, expected: float) -> None:
    logits = torch.tensor([math.log(probability / (1 - probability))])
    assert quality_focal_loss(logits, torch.tensor([quality])).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("box", "target", "expected"),
    [
        ([0, 0, 4, 4], [0, 0, 4, 4], 0.0),
        ([0, 0, 4, 4], [0, 0, 2, 4], 1 - 0.5),  # the hull is the larger one
        ([0, 0, 2, 2], [2, 0, 4, 2], 1.0),  # side by side: no overlap, nothing between
        ([0, 0, 1, 1], [3, 0, 4, 1], 1 + 2 / 4),  # two of the hull's four pixels belong to neither
    ],
)
def test_giou_loss(box: list[float], target: list[float], expected: float) -> None:
    loss = giou_loss(torch.tensor([box], dtype=torch.float32), torch.tensor([target], dtype=torch.float32))
    assert loss.tolist() == pytest.approx([expected])


def test_the_loss_of_a_batch_is_that_of_its_scores_and_of_the_boxes_weighted_by_quality() -> None:
    centres = torch.tensor([[2.0, 2.0], [20.0, 20.0]])
    boxes = torch.tensor([[[0.0, 0.0, 4.0, 2.0], [18.0, 18.0, 22.0, 22.0]]], requires_grad=True)
    logits = torch.zeros(1, 2, 2, requires_grad=True)
    objects = [Objects(np.array([[0, 0, 4, 4]], np.float32), np.array([1]))]
    loss = detection_loss(centres)((logits, boxes), objects)
    # The first place has an overlap of 0.5 with the object, which is its quality; scores of 0.5 meet it there.
    of_scores = 3 * 0.25 * math.log(2)
    of_boxes = BOX_WEIGHT * 0.5 * 0.5
    assert loss.item() == pytest.approx(of_scores + of_boxes)  # the divisor is never below 1
    loss.backward()
    assert boxes.grad[0, 1].abs().sum() == 0
    assert boxes.grad[0, 0].abs().sum() > 0
    assert logits.grad[0, 1].min() > 0


def test_pictures_without_objects_teach_silence() -> None:
    logits = torch.zeros(2, 3, 2, requires_grad=True)
    boxes = torch.rand(2, 3, 4)
    nothing = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    loss = detection_loss(torch.rand(3, 2))((logits, boxes), [nothing, nothing])
    loss.backward()
    assert loss.item() == pytest.approx(12 * 0.25 * math.log(2))
    assert (logits.grad > 0).all()
