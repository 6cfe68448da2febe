"""How far a detector is from its teacher, and that it learns to answer like it."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from kinglet.compression.pruning import reestimate_batch_norms
from kinglet.data.batches import standardize
from kinglet.data.boxed_images import BoxedImages, Objects
from kinglet.models.detector import INITIAL_PROBABILITY, places
from kinglet.training.detection import fit_detector
from kinglet.training.detection_distillation import distance_from_teacher, taught_loss
from kinglet.training.detection_losses import BOX_WEIGHT, detection_loss
from kinglet.training.teaching import Teaching, answered
from tests.unit.data.painted_rectangles import painted
from tests.unit.models.test_detector import lively
from tests.unit.training.test_detection import CPU, MEAN, STD, network, recipe


def answers(n: int = 2, n_places: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(n, n_places, 2, generator=generator) * 20
    edges = 4 + torch.rand(n, n_places, 2, generator=generator) * 20
    return torch.randn(n, n_places, 3, generator=generator), torch.cat([corners, corners + edges], 2)


def test_the_distance_is_that_of_every_score_and_of_the_boxes_that_the_teacher_is_sure_of() -> None:
    (logits, boxes), (teacher_logits, teacher_boxes) = student, teacher = answers(seed=1), answers(seed=2)
    total, sure = 0.0, 0.0
    for image in range(2):
        for place in range(5):
            p, q = logits[image, place].sigmoid(), teacher_logits[image, place].sigmoid()
            total += float(((p - q).abs() * functional.binary_cross_entropy(p, q, reduction="none")).sum())
            one, other = boxes[image, place].tolist(), teacher_boxes[image, place].tolist()
            shared = np.prod([max(0, min(one[2 + a], other[2 + a]) - max(one[a], other[a])) for a in (0, 1)])
            hull = np.prod([max(one[2 + a], other[2 + a]) - min(one[a], other[a]) for a in (0, 1)])
            union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared
            total += BOX_WEIGHT * float(q.max()) * (1 - shared / union + (hull - union) / hull)
            sure += float(q.max())
    assert float(distance_from_teacher(student, teacher)) == pytest.approx(total / max(1, sure), rel=1e-4)


def test_who_answers_like_the_teacher_has_nothing_to_learn_from_it() -> None:
    logits, boxes = (part.requires_grad_() for part in answers())
    distance = distance_from_teacher((logits, boxes), answers())
    distance.backward()
    assert distance.item() == pytest.approx(0, abs=1e-6)
    assert float(logits.grad.abs().max()) == pytest.approx(0, abs=1e-6)


def test_boxes_of_places_where_the_teacher_sees_nothing_do_not_count() -> None:
    logits, boxes = answers()
    teacher = (torch.full_like(logits, -80), boxes)
    other = boxes + torch.tensor([0.0, 0.0, 30.0, 9.0])
    assert torch.equal(distance_from_teacher((logits, boxes), teacher), distance_from_teacher((logits, other), teacher))


def test_the_teachers_share_lies_between_the_labels_and_the_teacher() -> None:
    centres, _ = places(32)
    student, teacher = answers(1, len(centres), 1), answers(1, len(centres), 2)
    objects = [Objects(np.array([[3, 4, 20, 22]], np.float32), np.array([1]))]
    by_labels, by_teacher = detection_loss(centres)(student, objects), distance_from_teacher(student, teacher)
    for share in (0.0, 0.25, 1.0):
        mixed = taught_loss(centres, share)(student, objects, teacher)
        torch.testing.assert_close(mixed, (1 - share) * by_labels + share * by_teacher)


def inputs_of(images: BoxedImages) -> torch.Tensor:
    return standardize(torch.from_numpy(images.packed).permute(0, 3, 1, 2).float(), MEAN, STD)


def test_a_detector_without_labels_learns_what_its_teacher_sees() -> None:
    images = painted(16, seed=1)
    teacher = lively(network())
    inputs = inputs_of(images)
    reestimate_batch_norms(teacher, [inputs])
    weights = copy.deepcopy(teacher.state_dict())
    nothing = Objects(np.empty((0, 4), np.float32), np.empty(0, np.int64))
    unlabelled = BoxedImages(images.packed, images.rows, images.insides, (nothing,) * len(images))
    sure = []
    for share in (0.0, 1.0):
        student, history = fit_detector(
            network(),
            unlabelled,
            painted(2, seed=3),
            replace(recipe(4), batch_size=4),
            n_classes=2,
            mean=MEAN,
            std=STD,
            device=CPU,
            teaching=Teaching(teacher, share),
        )
        sure.append(answered(student, inputs, "fp32")[0].sigmoid().amax(2).mean().item())
    # Labels say that there is nothing, and the teacher that there is more than a beginner thinks.
    assert sure[0] < INITIAL_PROBABILITY < sure[1]
    assert history[-1]["loss"] < 0.95 * history[0]["loss"]
    assert all(torch.equal(weights[name], value) for name, value in teacher.state_dict().items())
