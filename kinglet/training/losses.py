"""Losses of trainings from labels and from a teacher's answers.

Every loss is called with the logits of a batch, the positions of its examples in the training set, and
which of its images were mirrored; it returns the mean loss.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def label_loss(labels: Tensor, label_smoothing: float) -> Loss:
    """Return cross-entropy with the labels of shape (n_examples,), int64."""

    def loss(logits: Tensor, positions: Tensor, mirrored: Tensor) -> Tensor:
        del mirrored
        return functional.cross_entropy(logits, labels[positions].to(logits.device), label_smoothing=label_smoothing)

    return loss


def distillation_loss(labels: Tensor, teacher_logits: Tensor, temperature: float, soft_weight: float) -> Loss:
    """Return a mixture of cross-entropy and the divergence from the teacher's softened answers.

    labels: int64 (n_examples,). teacher_logits: float32 (n_examples, views, n_classes), where view 0 is
    the image as it is and view 1, if there, its mirror image. soft_weight: share of the teacher, [0, 1].
    Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
    """
    soft_targets = functional.softmax(teacher_logits / temperature, dim=-1)
    has_mirror = teacher_logits.shape[1] == 2

    def loss(logits: Tensor, positions: Tensor, mirrored: Tensor) -> Tensor:
        view = mirrored.long() if has_mirror else torch.zeros_like(positions)
        targets = soft_targets[positions, view].to(logits.device)
        soft = functional.kl_div(functional.log_softmax(logits / temperature, dim=-1), targets, reduction="batchmean")
        hard = functional.cross_entropy(logits, labels[positions].to(logits.device))
        return soft_weight * temperature**2 * soft + (1 - soft_weight) * hard

    return loss
