"""How a detector learns from another one's answers beside the labels: at every place its scores, and its boxes.

Source: Yang et al. 2023, "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection". Every
class of a place is a yes or no of its own, and counts by how far the student is from the teacher; boxes are held
against the teacher's by their overlap. Two things differ: a box counts by how sure the teacher is that there is an
object, also where the scores agree already, and the overlap is the generalized one, as for the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kinglet.data.boxed_images import Objects
from kinglet.training.detection_losses import BOX_WEIGHT, detection_loss, giou_loss

Answer = tuple[Tensor, Tensor]


def binary_divergence(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return the cross-entropy of every score with the teacher's, weighted by how far it is off; no mean is taken.

    logits, teacher_logits: float32 of the same shape. The weights are constants: where both say the same nothing pulls.
    """
    wanted = teacher_logits.sigmoid()
    distance = (logits.detach().sigmoid() - wanted).abs()
    return distance * functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def distance_from_teacher(answer: Answer, teacher: Answer) -> Tensor:
    """Return how far a detector's answer to a batch is from its teacher's, a single number.

    Each: logits (n, A, n_classes) and boxes (n, A, 4) in input pixels, with an area above 0. Both parts are sums over
    the batch, divided by the sum of the teacher's surest scores, which weigh the boxes.
    """
    (logits, boxes), (teacher_logits, teacher_boxes) = answer, teacher
    sure = teacher_logits.sigmoid().amax(2).flatten()
    of_scores = binary_divergence(logits, teacher_logits).sum()
    of_boxes = (giou_loss(boxes.flatten(0, 1), teacher_boxes.flatten(0, 1)) * sure).sum()
    return (of_scores + BOX_WEIGHT * of_boxes) / sure.sum().clamp_min(1.0)


def taught_loss(centres: Tensor, share: float) -> Callable[[Answer, Sequence[Objects], Answer], Tensor]:
    """Return the loss of an answer by the objects of the pictures and by the teacher's answer to them.

    centres: as `detection_loss` takes them. share: of the teacher, [0, 1].
    """
    by_labels = detection_loss(centres)

    def loss(answer: Answer, objects: Sequence[Objects], teacher: Answer) -> Tensor:
        return torch.lerp(by_labels(answer, objects), distance_from_teacher(answer, teacher), share)

    return loss
