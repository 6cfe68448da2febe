import numpy as np
import pytest
import scipy.special
import torch
from torch.nn import functional

from kinglet.training.losses import distillation_loss, label_loss

LABELS = torch.tensor([2, 0, 1, 2, 1, 0])
POSITIONS = torch.tensor([4, 0, 3, 1])
MIRRORED = torch.tensor([True, False, True, False])
LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TEACHER = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_loss_is_the_mean_of_negative_log_probabilities(smoothing):
    log_probabilities = scipy.special.log_softmax(LOGITS.numpy(), axis=1)
    expected = 0.0
    for row, position in enumerate(POSITIONS.tolist()):
        target = np.full(3, smoothing / 3)
        target[LABELS[position]] += 1 - smoothing
        expected -= (target * log_probabilities[row]).sum() / 4
    assert label_loss(LABELS, smoothing)(LOGITS, POSITIONS, MIRRORED).item() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("soft_weight", [0.0, 0.3, 1.0])
def test_distillation_loss_is_a_mixture_of_teacher_and_labels(temperature, soft_weight):
    loss = distillation_loss(LABELS, TEACHER, temperature, soft_weight)
    answers = TEACHER[POSITIONS, MIRRORED.long()]
    targets = functional.softmax(answers / temperature, 1)
    entropy = torch.special.entr(targets).sum(1).mean()
    soft = functional.cross_entropy(LOGITS / temperature, targets) - entropy
    hard = functional.cross_entropy(LOGITS, LABELS[POSITIONS])
    expected = soft_weight * temperature**2 * soft + (1 - soft_weight) * hard
    assert loss(LOGITS, POSITIONS, MIRRORED).item() == pytest.approx(expected.item())


def test_student_that_answers_as_its_teacher_has_no_soft_loss():
    loss = distillation_loss(LABELS, TEACHER, 4.0, 1.0)
    assert loss(TEACHER[POSITIONS, MIRRORED.long()], POSITIONS, MIRRORED).item() == pytest.approx(0)
    assert loss(TEACHER[POSITIONS, (~MIRRORED).long()], POSITIONS, MIRRORED).item() > 0.1


def test_teacher_with_one_view_gives_it_for_mirrored_images_as_well():
    loss = distillation_loss(LABELS, TEACHER[:, :1], 2.0, 0.7)
    assert torch.equal(loss(LOGITS, POSITIONS, MIRRORED), loss(LOGITS, POSITIONS, ~MIRRORED))
    both = distillation_loss(LABELS, TEACHER, 2.0, 0.7)
    assert torch.equal(loss(LOGITS, POSITIONS, MIRRORED), both(LOGITS, POSITIONS, torch.zeros(4, dtype=torch.bool)))
