"""Losses of detectors: scores that say how well a box fits, and boxes that do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kinglet.data.boxed_images import Objects
from kinglet.training.box_assignment import NO_OBJECT, assign

# Of a box's place beside its score, the value of TOOD.
BOX_WEIGHT = 2.0
FOCUS = 2.0


def quality_focal_loss(logits: Tensor, quality: Tensor) -> Tensor:
    """Return cross-entropy with scores between 0 and 1, weighted by the squared distance from them; no mean is taken.

    logits: float32, any shape. quality: of the same shape, [0, 1], what the sigmoid should be.
    Source: Li et al. 2020, "Generalized Focal Loss", equation 5, beta = 2.
    """
    distance = (logits.sigmoid() - quality).abs()
    return distance**FOCUS * functional.binary_cross_entropy_with_logits(logits, quality, reduction="none")


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return 1 minus the generalized intersection over union of boxes with their targets, (n,), [0, 2].

    boxes, targets: float32 (n, 4), left, top, right, bottom, with an area above 0.
    Source: Rezatofighi et al. 2019, "Generalized Intersection over Union".
    """
    shared = (
        (torch.minimum(boxes[:, 2:], targets[:, 2:]) - torch.maximum(boxes[:, :2], targets[:, :2])).clamp_min(0).prod(1)
    )
    hull = (torch.maximum(boxes[:, 2:], targets[:, 2:]) - torch.minimum(boxes[:, :2], targets[:, :2])).prod(1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (targets[:, 2:] - targets[:, :2]).prod(1) - shared
    return 1 - shared / union + (hull - union) / hull


def detection_loss(centres: Tensor) -> Callable[[tuple[Tensor, Tensor], Sequence[Objects]], Tensor]:
    """Return the loss of a detector's answer to a batch: that of the scores, and of the boxes of places with an object.

    centres: float32 (A, 2), of the places in input pixels. The loss takes (logits (n, A, n_classes), boxes (n, A, 4))
    and the objects of the n pictures. Both parts are sums over the batch, divided by the sum of the qualities: places
    that are better for their object count more.
    """

    def loss(outputs: tuple[Tensor, Tensor], shown: Sequence[Objects]) -> Tensor:
        logits, boxes = outputs
        places = centres.to(logits.device)
        quality = torch.zeros_like(logits)
        found, wanted, weights = [], [], []
        for index, objects in enumerate(shown):
            # Copies: arrays that cannot be written to, as those of images shown whole, torch warns of.
            xyxy = torch.tensor(objects.xyxy, device=logits.device)
            labels = torch.tensor(objects.labels, device=logits.device)
            answer = logits[index].detach().sigmoid(), boxes[index].detach()
            assigned = assign(*answer, places, xyxy, labels)
            chosen = (assigned.objects != NO_OBJECT).nonzero()[:, 0]
            of_chosen = assigned.objects[chosen]
            quality[index, chosen, labels[of_chosen]] = assigned.quality[chosen]
            found.append(boxes[index, chosen])
            wanted.append(xyxy[of_chosen])
            weights.append(assigned.quality[chosen])
        weight = torch.cat(weights)
        of_boxes = (giou_loss(torch.cat(found), torch.cat(wanted)) * weight).sum()
        of_scores = quality_focal_loss(logits, quality).sum()
        return (of_scores + BOX_WEIGHT * of_boxes) / weight.sum().clamp_min(1.0)

    return loss
