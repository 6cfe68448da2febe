"""Which places of a detector learn which object.

Source: Feng et al. 2021, "TOOD: Task-aligned One-stage Object Detection", section 3.3: a place is as good for an object
as it is sure of the class and right about the box; the best ones learn it, their score the overlap they reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The authors' values.
SCORE_POWER, OVERLAP_POWER, N_CANDIDATES = 1.0, 6.0, 13
NO_OBJECT = -1


@dataclass(frozen=True)
class Assignment:
    """What the A places of one image learn.

    objects: int64 (A,), the object of each, NO_OBJECT for none. quality: float32 (A,), [0, 1], the score that the place
    should give the object's class; 0 where there is no object.
    """

    objects: Tensor
    quality: Tensor


@torch.no_grad()
def assign(scores: Tensor, boxes: Tensor, centres: Tensor, xyxy: Tensor, labels: Tensor) -> Assignment:
    """Return the objects that the places of one image learn, by what they answer now.

    scores: float32 (A, n_classes), [0, 1]. boxes: float32 (A, 4), centres: float32 (A, 2), in input pixels.
    xyxy: float32 (m, 4), labels: int64 (m,), of the image's objects. A place learns an object only if its centre lies
    inside; an object without such a place is learnt by the nearest one. A place that several objects want takes
    the one that its box overlaps most.
    """
    n_places, n_objects = len(scores), len(xyxy)
    if n_objects == 0:
        return Assignment(
            torch.full((n_places,), NO_OBJECT, device=scores.device), torch.zeros(n_places, device=scores.device)
        )
    overlaps = pairwise_iou(xyxy, boxes)
    is_inside = lie_inside(centres, xyxy)
    alignment = scores[:, labels].t() ** SCORE_POWER * overlaps**OVERLAP_POWER
    # Below every place inside, so that those are taken first even where nothing overlaps yet.
    ranked = alignment.masked_fill(~is_inside, -1.0)
    best = ranked.topk(min(N_CANDIDATES, n_places), dim=1).indices
    is_candidate = torch.zeros_like(is_inside).scatter_(1, best, True) & is_inside
    claims = overlaps.masked_fill(~is_candidate, -1.0)
    objects = claims.argmax(0)
    takes = torch.nn.functional.one_hot(objects, n_objects).t().bool() & is_candidate
    alignment, overlaps = alignment * takes, overlaps * takes
    # The best place of an object should say the highest overlap, the others less by how much less they are aligned.
    scale = overlaps.amax(1, keepdim=True) / alignment.amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    quality = (alignment * scale).sum(0)
    return Assignment(torch.where(takes.any(0), objects, NO_OBJECT), quality)


def lie_inside(centres: Tensor, xyxy: Tensor) -> Tensor:
    """Return which centres (A, 2) lie in which boxes (m, 4), bool (m, A); the nearest for a box that has none."""
    distances = torch.cat([centres - xyxy[:, None, :2], xyxy[:, None, 2:] - centres], 2)
    is_inside = distances.amin(2) > 0
    middles = (xyxy[:, :2] + xyxy[:, 2:]) / 2
    nearest = (centres - middles[:, None]).square().sum(2).argmin(1)
    is_nearest = torch.nn.functional.one_hot(nearest, len(centres)).bool()
    return torch.where(is_inside.any(1, keepdim=True), is_inside, is_nearest)


def pairwise_iou(one: Tensor, other: Tensor) -> Tensor:
    """Return the intersection over union of all pairs of boxes, float32 (m, n), [0, 1].

    one, other: float32 (m, 4) and (n, 4), left, top, right, bottom, with an area above 0.
    """
    low = torch.maximum(one[:, None, :2], other[:, :2])
    high = torch.minimum(one[:, None, 2:], other[:, 2:])
    shared = (high - low).clamp_min(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
    return shared / (areas[0][:, None] + areas[1] - shared)
