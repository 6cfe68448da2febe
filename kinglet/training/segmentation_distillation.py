"""How a segmenter learns from another one's answers beside the labels: at every place, how likely each class is.

Source: Liu et al. 2019, "Structured Knowledge Distillation for Semantic Segmentation", section 3.1, pixel-wise
distillation; the divergence is KL(teacher || student), as in Hinton, Vinyals and Dean 2015, and void counts nowhere.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from kinglet.runtime.segmentation import VOID


def distance_from_teacher(logits: Tensor, teacher_logits: Tensor, masks: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of a teacher's classes from a segmenter's, in nats, mean over places.

    logits, teacher_logits: float32 (n, n_classes, height, width), both as coarse as networks answer. masks: uint8
    (n, mask height, mask width), on the same device. A place counts by the share of its pixels that are not void: bars
    around an image are, and nobody ever told the teacher about the others. 0 if all are void.
    """
    height, width = (int(edge) for edge in logits.shape[2:])
    known = functional.adaptive_avg_pool2d((masks != VOID).to(torch.float32)[:, None], (height, width))[:, 0]
    of_classes = functional.kl_div(
        logits.log_softmax(1), teacher_logits.log_softmax(1), reduction="none", log_target=True
    )
    return (of_classes.sum(1) * known).sum() / known.sum().clamp_min(1e-6)


def taught_loss(
    by_labels: Callable[[Tensor, Tensor], Tensor], share: float
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the loss of an answer by the masks of the pictures and by the teacher's answer to them.

    by_labels: of an answer and masks, as `segmentation_loss` gives it. share: of the teacher, [0, 1].
    """

    def loss(logits: Tensor, masks: Tensor, teacher_logits: Tensor) -> Tensor:
        return torch.lerp(by_labels(logits, masks), distance_from_teacher(logits, teacher_logits, masks), share)

    return loss
