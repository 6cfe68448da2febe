"""How far a segmenter is from its teacher, and that it learns to answer like it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from kinglet.compression.pruning import reestimate_batch_norms
from kinglet.data.batches import standardize
from kinglet.data.packed_masks import MaskedImages
from kinglet.runtime.segmentation import VOID
from kinglet.training.epochs import Recipe
from kinglet.training.segmentation import fit_segmenter
from kinglet.training.segmentation_distillation import distance_from_teacher, taught_loss
from kinglet.training.segmentation_losses import segmentation_loss
from kinglet.training.teaching import Teaching, answered
from tests.unit.data.test_mask_augmentation import painted
from tests.unit.models.test_detector import with_own_normalizations
from tests.unit.training.test_segmentation import CPU, MEAN, STD, network


def logits(seed: int) -> torch.Tensor:
    return torch.randn(2, 3, 2, 4, generator=torch.Generator().manual_seed(seed))


def labelled() -> torch.Tensor:
    """Return masks (2, 4, 8), twice as fine as the logits, with void of every share of a place."""
    masks = torch.randint(3, (2, 4, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    masks[0, :2, :2] = masks[0, 2, 4:6] = masks[1, 3, 7] = VOID
    return masks


def test_the_distance_is_the_mean_divergence_and_a_place_counts_by_its_pixels_that_are_not_void() -> None:
    student, teacher, masks = logits(1), logits(2), labelled()
    total, counted = 0.0, 0.0
    for image in range(2):
        for row in range(2):
            for column in range(4):
                p, q = (one[image, :, row, column].softmax(0) for one in (teacher, student))
                pixels = masks[image, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                known = int((pixels != VOID).sum())
                total += known * float((p * (p / q).log()).sum())
                counted += known
    assert counted == 2 * 4 * 8 - 7
    assert float(distance_from_teacher(student, teacher, masks)) == pytest.approx(total / counted, rel=1e-5)


def test_who_answers_like_the_teacher_has_nothing_to_learn_from_it() -> None:
    own = logits(1).requires_grad_()
    # A softmax does not see what is added to all classes.
    distance = distance_from_teacher(own, logits(1) + 3, labelled())
    distance.backward()
    assert distance.item() == pytest.approx(0, abs=1e-6)
    assert own.grad is not None
    assert float(own.grad.abs().max()) == pytest.approx(0, abs=1e-6)


def test_a_teacher_is_not_heard_where_all_is_void() -> None:
    own = logits(1).requires_grad_()
    distance = distance_from_teacher(own, logits(2), torch.full((2, 4, 8), VOID, dtype=torch.uint8))
    distance.backward()
    assert distance.item() == 0
    assert own.grad is not None
    assert not own.grad.any()


def test_the_teachers_share_lies_between_the_labels_and_the_teacher() -> None:
    student, teacher, masks = logits(1), logits(2), labelled()
    loss = segmentation_loss()
    by_labels, by_teacher = loss(student, masks), distance_from_teacher(student, teacher, masks)
    for share in (0.0, 0.25, 1.0):
        mixed = taught_loss(loss, share)(student, masks, teacher)
        torch.testing.assert_close(mixed, (1 - share) * by_labels + share * by_teacher)


def test_a_segmenter_learns_what_its_teacher_sees_where_the_masks_say_otherwise() -> None:
    images = painted(16, seed=1)
    inputs = standardize(torch.from_numpy(images.packed).permute(0, 3, 1, 2).float(), MEAN, STD)
    teacher = with_own_normalizations(network())
    torch.nn.init.normal_(teacher.classes.weight, std=0.5, generator=torch.Generator().manual_seed(2))
    reestimate_batch_norms(teacher, [inputs])
    weights = copy.deepcopy(teacher.state_dict())
    seen = answered(teacher, inputs, "fp32").argmax(1)
    assert 0.2 < seen.float().mean() < 0.8
    # The masks say that all is of class 0.
    labels = MaskedImages(images.packed, np.zeros_like(images.masks), images.rows)
    recipe = Recipe(
        phases=((1, 64),),
        batch_size=8,
        learning_rate=1e-2,
        weight_decay=0.0,
        warmup=0.1,
        layer_decay=1.0,
        ema_decay=0.9,
        patience=100,
        augment=("flip",),
        precision="fp32",
        seed=0,
    )
    agreeing = []
    for share in (0.0, 1.0):
        student, _ = fit_segmenter(
            network(),
            labels,
            painted(2, seed=3),
            recipe,
            n_classes=2,
            mean=MEAN,
            std=STD,
            device=CPU,
            teaching=Teaching(teacher, share),
        )
        found = answered(student, inputs, "fp32").argmax(1)
        agreeing.append((found == seen)[seen == 1].float().mean().item())
    assert agreeing[0] < 0.1
    assert agreeing[1] > 0.5
    assert all(torch.equal(weights[name], value) for name, value in teacher.state_dict().items())
