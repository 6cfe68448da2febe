"""What "auto" amounts to in the trainings of very different data sets."""

from __future__ import annotations

import pytest

from kinglet.training.schedules import EpochBudget
from tasks import finetune
from tasks.artifacts import InputSizes
from tasks.parameters import Parameters
from tasks.recipes import pruned_recipe, student_recipe


def parameters(**finetune_settings: object) -> Parameters:
    return Parameters.model_validate(
        {
            "data": {"source": "photos", "images": "photos"},
            "finetune": {"backbone": "efficientnet-lite0", **finetune_settings},
            "distill": {"students": {"small": {"stages": [{"width": 16, "stride": 2}]}}},
        }
    )


def sizes(teacher: int, low: int) -> InputSizes:
    return InputSizes(teacher=teacher, low_resolution=low, student=28, students={"small": 28}, candidates=[])


@pytest.mark.parametrize(
    ("n_examples", "pixels", "epochs"),
    [
        (1000, 100, 10.0),
        (10_000, 1000, 2.0),  # never fewer than the fewest
        (1, 1, 30.0),  # never more than the most
    ],
)
def test_budget_pays_for_epochs_within_its_limits(n_examples: int, pixels: float, epochs: float) -> None:
    assert EpochBudget(pixels=1e6, fewest=2, most=30).epochs(n_examples, pixels) == epochs


def test_small_pictures_are_trained_few_epochs_at_one_size() -> None:
    phases = finetune.phases_of(parameters().finetune, sizes(48, 48), 54_000)
    assert phases == ((2.5, 48),)


def test_photographs_are_trained_many_epochs_with_the_low_resolution_first() -> None:
    (low, low_size), (high, high_size) = finetune.phases_of(parameters().finetune, sizes(128, 80), 1_800)
    assert (low_size, high_size) == (80, 128)
    assert 10 < low + high < 30
    assert low / (low + high) == pytest.approx(parameters().finetune.low_resolution_share)


def test_epochs_of_the_settings_count_for_both_resolutions_together() -> None:
    phases = finetune.phases_of(parameters(epochs=8, low_resolution_share=0.25).finetune, sizes(128, 80), 1_800)
    assert phases == ((2.0, 80), (6.0, 128))


def test_images_are_shifted_where_they_are_seen_often_and_as_the_settings_say() -> None:
    automatic = parameters().finetune
    assert finetune.augmentations_of(automatic, 3) == ("flip",)
    assert finetune.augmentations_of(automatic, 15) == ("flip", "shift")
    assert finetune.augmentations_of(parameters(augment=["erase"]).finetune, 15) == ("erase",)
    assert finetune.augmentations_of(parameters(augment=[]).finetune, 15) == ()


def test_a_pruned_model_trains_as_it_was_distilled_but_more_gently() -> None:
    settings = parameters()
    distilled = student_recipe(settings.distill, False, 28, 54_000, seed=3)
    pruned = pruned_recipe(settings.prune, settings.distill, 28, 54_000, seed=3)
    assert pruned.phases[0][0] < distilled.phases[0][0]
    assert pruned.learning_rate < distilled.learning_rate
    assert (pruned.augment, pruned.weight_decay, pruned.seed) == (distilled.augment, distilled.weight_decay, 3)


def test_a_student_with_trained_weights_trains_shorter_and_more_gently() -> None:
    settings = parameters().distill
    anew, onward = (student_recipe(settings, pretrained, 48, 54_000, seed=3) for pretrained in (False, True))
    assert onward.phases[0][0] < anew.phases[0][0]
    assert onward.learning_rate < anew.learning_rate
    assert (onward.augment, onward.seed) == (anew.augment, 3)
