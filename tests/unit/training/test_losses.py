from dataclasses import replace

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch.nn import functional

from kinglet.data.views import Shown
from kinglet.training.losses import DISTANCES, DKD_ALPHA, DKD_BETA, NO_LABEL, distillation_loss, label_loss

LABELS = torch.tensor([2, 0, 1, 2, 1, 0])
POSITIONS = torch.tensor([4, 0, 3, 1])
VIEWS = torch.tensor([1, 0, 1, 0])
SHOWN = Shown(POSITIONS, VIEWS, POSITIONS, torch.ones(4))
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
    assert label_loss(LABELS, smoothing)(LOGITS, SHOWN).item() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("soft_weight", [0.0, 0.3, 1.0])
def test_distillation_by_divergence_is_a_mixture_of_teacher_and_labels(temperature, soft_weight):
    loss = distillation_loss(LABELS, TEACHER, "kl", temperature, soft_weight)
    answers = TEACHER[POSITIONS, VIEWS]
    targets = functional.softmax(answers / temperature, 1)
    entropy = torch.special.entr(targets).sum(1).mean()
    soft = functional.cross_entropy(LOGITS / temperature, targets) - entropy
    hard = functional.cross_entropy(LOGITS, LABELS[POSITIONS])
    expected = soft_weight * temperature**2 * soft + (1 - soft_weight) * hard
    assert loss(LOGITS, SHOWN).item() == pytest.approx(expected.item())


def test_an_image_without_a_label_adds_nothing_to_the_labels_loss_and_counts():
    labels = torch.tensor([NO_LABEL, 0, 1, NO_LABEL, 1, 0])  # shown: 4, 0, 3, 1
    of_labelled = [functional.cross_entropy(LOGITS[row], labels[position]) for row, position in ((0, 4), (3, 1))]
    assert label_loss(labels, 0.0)(LOGITS, SHOWN).item() == pytest.approx(sum(of_labelled).item() / 4)
    none = torch.full((6,), NO_LABEL)
    assert label_loss(none, 0.1)(LOGITS, SHOWN).item() == 0
    mixed = replace(SHOWN, partners=torch.tensor([0, 2, 3, 1]), shares=torch.tensor([0.6, 0.7, 0.9, 1.0]))
    expected = 0.6 * of_labelled[0] + 0.3 * functional.cross_entropy(LOGITS[1], labels[2]) + of_labelled[1]
    assert label_loss(labels, 0.0)(LOGITS, mixed).item() == pytest.approx(expected.item() / 4)


@pytest.mark.parametrize("kind", DISTANCES)
def test_the_teachers_answer_alone_teaches_about_an_image_without_a_label(kind):
    labels = torch.full((6,), NO_LABEL)
    loss = distillation_loss(labels, TEACHER, kind, 2.0, 0.7)
    surest = TEACHER[POSITIONS, VIEWS].argmax(1)
    as_if = torch.zeros(6, dtype=torch.long).index_put((POSITIONS,), surest)
    expected = 0.7 * distillation_loss(as_if, TEACHER, kind, 2.0, 1.0)(LOGITS, SHOWN)
    assert loss(LOGITS, SHOWN).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("kind", DISTANCES)
def test_student_that_answers_as_its_teacher_has_no_soft_loss(kind):
    loss = distillation_loss(LABELS, TEACHER, kind, 4.0, 1.0)
    assert loss(TEACHER[POSITIONS, VIEWS], SHOWN).item() == pytest.approx(0)
    assert loss(TEACHER[POSITIONS, 1 - VIEWS], SHOWN).item() > 0.1


def test_mixed_picture_has_the_labels_of_both_its_images_by_their_shares():
    shown = replace(SHOWN, partners=torch.tensor([0, 0, 5, 2]), shares=torch.tensor([0.6, 1.0, 0.5, 0.9]))
    expected = 0.0
    for row in range(4):
        for places, share in ((shown.positions, shown.shares[row]), (shown.partners, 1 - shown.shares[row])):
            expected += share * functional.cross_entropy(LOGITS[row], LABELS[places[row]], label_smoothing=0.1) / 4
    assert label_loss(LABELS, 0.1)(LOGITS, shown).item() == pytest.approx(expected.item())
    unmixed = replace(shown, shares=torch.ones(4))
    assert label_loss(LABELS, 0.1)(LOGITS, unmixed).item() == pytest.approx(
        label_loss(LABELS, 0.1)(LOGITS, SHOWN).item()
    )
    taught = distillation_loss(LABELS, TEACHER, "kl", 2.0, 0.0)
    assert taught(LOGITS, shown).item() == pytest.approx(label_loss(LABELS, 0.0)(LOGITS, shown).item())


@pytest.mark.parametrize("kind", DISTANCES)
def test_every_distance_teaches_a_student_to_answer_as_its_teacher(kind):
    loss = distillation_loss(LABELS, TEACHER, kind, 2.0, 1.0)
    answers = TEACHER[POSITIONS, VIEWS]
    logits = LOGITS.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    before = loss(logits, SHOWN).item()
    for _ in range(200):
        optimizer.zero_grad()
        loss(logits, SHOWN).backward()
        optimizer.step()
    assert loss(logits, SHOWN).item() < before / 100
    assert torch.equal(logits.argmax(1), answers.argmax(1))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_decoupled_divergence_equals_hand_computed_parts(temperature):
    student, teacher = (scipy.special.softmax(x.numpy() / temperature, 1) for x in (LOGITS, TEACHER[POSITIONS, VIEWS]))
    expected = 0.0
    for row, position in enumerate(POSITIONS.tolist()):
        right = int(LABELS[position])
        wrong = [index for index in range(3) if index != right]
        p, q = teacher[row], student[row]
        binary = scipy.special.rel_entr([p[right], 1 - p[right]], [q[right], 1 - q[right]]).sum()
        rest = scipy.special.rel_entr(p[wrong] / p[wrong].sum(), q[wrong] / q[wrong].sum()).sum()
        expected += temperature**2 * (DKD_ALPHA * binary + DKD_BETA * rest) / 4
    loss = distillation_loss(LABELS, TEACHER, "dkd", temperature, 1.0)
    assert loss(LOGITS, SHOWN).item() == pytest.approx(expected)


def test_decoupled_divergence_with_two_classes_is_the_plain_one():
    labels, student = LABELS.clamp(max=1), LOGITS[:, :2]
    plain, decoupled = (
        distillation_loss(labels, TEACHER[..., :2], kind, 2.0, 1.0)(student, SHOWN) for kind in ("kl", "dkd")
    )
    assert decoupled.item() == pytest.approx(DKD_ALPHA * plain.item())


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_relation_distance_equals_hand_computed_correlations(temperature):
    student, teacher = (scipy.special.softmax(x.numpy() / temperature, 1) for x in (LOGITS, TEACHER[POSITIONS, VIEWS]))
    by_image = np.mean([1 - scipy.stats.pearsonr(a, b).statistic for a, b in zip(student, teacher, strict=True)])
    by_class = np.mean([1 - scipy.stats.pearsonr(a, b).statistic for a, b in zip(student.T, teacher.T, strict=True)])
    loss = distillation_loss(LABELS, TEACHER, "dist", temperature, 1.0)
    assert loss(LOGITS, SHOWN).item() == pytest.approx(temperature**2 * (by_image + by_class))


def test_relation_distance_does_not_mind_scale_and_shift_of_probabilities():
    generator = torch.Generator().manual_seed(3)
    teacher = torch.rand(6, 2, 3, generator=generator, dtype=torch.float64)
    teacher /= teacher.sum(2, keepdim=True)
    nearer_uniform = (teacher[POSITIONS, VIEWS] + 1 / 3) / 2
    loss = distillation_loss(LABELS, teacher.log(), "dist", 1.0, 1.0)
    assert loss(nearer_uniform.log(), SHOWN).item() == pytest.approx(0, abs=1e-9)
