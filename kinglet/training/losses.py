"""Losses of trainings from labels and from a teacher's answers.

Every loss is called with what a network returned in training for a batch, its logits (and its maps, if it shows
them), and with what the batch showed of the training set; it returns the mean loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kinglet.data.views import Shown

# The label of an image that has none: only the teacher's answer to it teaches.
NO_LABEL = -1

Loss = Callable[[Any, Shown], Tensor]


def label_loss(labels: Tensor, label_smoothing: float) -> Loss:
    """Return cross-entropy with the labels, int64 (n_examples,); of a mixed picture with those of both its images.

    An image with `NO_LABEL` adds nothing, and counts: half a batch without labels has half of the loss.
    Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization".
    """

    def loss(logits: Tensor, shown: Shown) -> Tensor:
        own, others = (labels[places].to(logits.device) for places in (shown.positions, shown.partners))
        if torch.equal(shown.positions, shown.partners) and bool((own != NO_LABEL).all()):
            return functional.cross_entropy(logits, own, label_smoothing=label_smoothing)
        shares = shown.shares.to(logits)
        of_own, of_others = (
            functional.cross_entropy(
                logits, targets, label_smoothing=label_smoothing, reduction="none", ignore_index=NO_LABEL
            )
            for targets in (own, others)
        )
        return torch.lerp(of_others, of_own, shares).mean()

    return loss


def distillation_loss(
    labels: Tensor, teacher_logits: Tensor, kind: str, temperature: float, soft_weight: float
) -> Loss:
    """Return a mixture of cross-entropy with the labels and a distance from the teacher's answers.

    labels: int64 (n_examples,). teacher_logits: float32 (n_examples, n_views, n_classes). kind: a key of
    `DISTANCES`. soft_weight: share of the teacher, [0, 1]; with 0 the student learns from the labels alone. Where
    a label is `NO_LABEL`, the class that the teacher is surest of stands for it in the distance.
    """
    distance, from_labels = DISTANCES[kind], label_loss(labels, 0.0)

    def loss(logits: Tensor, shown: Shown) -> Tensor:
        teacher = teacher_logits[shown.positions, shown.views].to(logits.device)
        own = labels[shown.positions].to(logits.device)
        own = torch.where(own == NO_LABEL, teacher.argmax(1), own)
        soft = distance(logits, teacher, own, temperature)
        return soft_weight * soft + (1 - soft_weight) * from_labels(logits, shown)

    return loss


def divergence(logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the mean divergence of softened answers, times the temperature squared.

    logits, teacher: float (n, n_classes). labels: int64 (n,), not used.
    Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
    """
    del labels
    log_student = functional.log_softmax(logits / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


# What the paper takes for ImageNet is 1 and 0.5 to 8; beta weighs what the teacher says of the wrong classes.
DKD_ALPHA, DKD_BETA = 1.0, 2.0


def decoupled_divergence(logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return divergence in two parts: right class against all others, and the others among themselves.

    The plain divergence weighs the second part with how unsure the teacher is, and so hides what a sure
    teacher knows about the wrong classes. With one wrong class only, the second part is zero.
    Source: Zhao et al. 2022, "Decoupled Knowledge Distillation", equations 5 to 7.
    """
    right = functional.one_hot(labels, logits.shape[1]).bool()
    log_student = functional.log_softmax(logits / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    right_or_not = functional.kl_div(
        _right_and_rest(log_student, right), _right_and_rest(log_teacher, right), reduction="batchmean", log_target=True
    )
    n_wrong = logits.shape[1] - 1
    among_wrong = functional.kl_div(
        functional.log_softmax(logits[~right].view(-1, n_wrong) / temperature, dim=1),
        functional.log_softmax(teacher[~right].view(-1, n_wrong) / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * (DKD_ALPHA * right_or_not + DKD_BETA * among_wrong)


def _right_and_rest(log_probabilities: Tensor, right: Tensor) -> Tensor:
    """Return the logarithms of the probability of the right class and of all others together: (n, 2)."""
    rest = log_probabilities.masked_fill(right, -torch.inf).logsumexp(dim=1)
    return torch.stack([log_probabilities[right], rest], dim=1)


# The authors' weights of both relations for ImageNet.
DIST_BETA, DIST_GAMMA = 1.0, 1.0


def relation_distance(logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return how far the answers are from a perfect linear relation with the teacher's: by image and by class.

    A small student cannot match a strong teacher's probabilities, but it can rank as the teacher does:
    the classes of an image, and the images of a batch for each class.
    Source: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher" (DIST), equations 6 to 10.
    """
    del labels
    student = functional.softmax(logits / temperature, dim=1)
    target = functional.softmax(teacher / temperature, dim=1)
    by_image = 1 - _correlation(student, target).mean()
    by_class = 1 - _correlation(student.t(), target.t()).mean()
    return temperature**2 * (DIST_BETA * by_image + DIST_GAMMA * by_class)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Pearson's correlation of the rows, (rows,); 0 where a row does not vary."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return functional.cosine_similarity(a, b, dim=1)


Distance = Callable[[Tensor, Tensor, Tensor, float], Tensor]

# A new distance is a function and a line here; `distill.loss` in params.yaml takes its names from the keys.
DISTANCES: dict[str, Distance] = {"kl": divergence, "dkd": decoupled_divergence, "dist": relation_distance}
