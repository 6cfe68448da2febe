"""Self-training and fine-tuning on a small problem whose pictures change, and which pseudo-labels are taken."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kinglet.adaptation.batch_norm import adapt_batch_norms, batch_norms
from kinglet.adaptation.self_training import LEAST_SHARE, pseudo_labels, self_train
from kinglet.adaptation.training import AdaptationRecipe, TargetImages, fine_tune, go_on
from kinglet.data.batches import gather, standardize
from kinglet.errors import KingletError
from kinglet.training.loop import ImageSet, Recipe, fit, predict
from kinglet.training.losses import NO_LABEL, label_loss
from tests.unit.models.small_networks import bright_quadrants, residual_cnn

MEAN, STD = [0.45] * 3, [0.25] * 3
CPU = torch.device("cpu")
RECIPE = AdaptationRecipe(epochs=4, batch_size=16, learning_rate=3e-3, ema_decay=0.9, augment=(), seed=1)


def changed(images: ImageSet) -> TargetImages:
    """Return the images as a camera with much stray light and noise sees them."""
    noise = np.random.default_rng(7).normal(0, 12, images.packed[16].shape)
    return TargetImages(np.clip(150 + 0.1 * images.packed[16] + noise, 0, 255).astype(np.uint8), MEAN, STD)


def accuracy(network: nn.Module, images: TargetImages, labels: np.ndarray) -> float:
    logits = predict(network, images.packed, np.arange(len(images.packed)), MEAN, STD, CPU)
    return float((logits.argmax(1).numpy() == labels).mean())


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A network that knows the problem, on images as they are."""
    images = bright_quadrants(256, seed=1)
    loss = label_loss(torch.from_numpy(images.labels), 0.0)
    recipe = Recipe(((4, 16),), 32, 0.01, 0.0, 0.1, 1.0, 0.9, 100, (), "fp32", 0)
    network, _ = fit(residual_cnn(), images, bright_quadrants(64, seed=2), loss, recipe, mean=MEAN, std=STD, device=CPU)
    return network


@pytest.fixture(scope="module")
def adapted(trained: nn.Module) -> nn.Module:
    """The network with the statistics of changed images."""
    network = copy.deepcopy(trained)
    images = changed(bright_quadrants(128, seed=3))
    adapt_batch_norms(network, [standardize(gather(images.packed, np.arange(128)), MEAN, STD)], 0.1)
    return network


def test_every_method_wins_back_what_the_change_cost(trained: nn.Module, adapted: nn.Module) -> None:
    given, judging = bright_quadrants(128, seed=3), bright_quadrants(200, seed=4)
    clean = accuracy(trained, TargetImages(judging.packed[16], MEAN, STD), judging.labels)
    before = accuracy(trained, changed(judging), judging.labels)
    assert clean - before > 0.2
    few = TargetImages(changed(given).packed[:32], MEAN, STD)
    for network in (
        adapted,
        self_train(adapted, changed(given), 0.8, RECIPE, CPU),
        fine_tune(adapted, few, torch.from_numpy(given.labels[:32]), RECIPE, CPU),
    ):
        assert accuracy(network, changed(judging), judging.labels) > before + 0.5 * (clean - before)


def test_training_leaves_statistics_and_the_network_it_starts_from_and_is_the_same_again(adapted: nn.Module) -> None:
    images = changed(bright_quadrants(48, seed=3))
    start = copy.deepcopy(adapted.state_dict())
    one, other = (self_train(adapted, images, 0.8, replace(RECIPE, epochs=1), CPU) for _ in range(2))
    assert all(torch.equal(value, adapted.state_dict()[name]) for name, value in start.items())
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    for before, after in zip(batch_norms(adapted), batch_norms(one), strict=True):
        assert torch.equal(before.running_mean, after.running_mean)
        assert not torch.equal(before.weight, after.weight)
    norms = [name for name, part in one.named_modules() if part in batch_norms(one)]
    trained = {f"{name}.{kind}" for name in norms for kind in ("weight", "bias")}
    changed_values = {name for name, value in one.state_dict().items() if not torch.equal(value, start[name])}
    assert changed_values == trained
    assert not one.training


def test_images_without_a_label_teach_nothing(adapted: nn.Module) -> None:
    images = changed(bright_quadrants(32, seed=3))
    labels = torch.from_numpy(bright_quadrants(32, seed=3).labels)
    labels[16:] = NO_LABEL
    other = TargetImages(images.packed.copy(), MEAN, STD)
    other.packed[16:] = 0
    recipe = replace(RECIPE, epochs=1)
    one, same = (go_on(adapted, shown, lambda _: labels, recipe, CPU).state_dict() for shown in (images, other))
    assert all(torch.equal(value, same[name]) for name, value in one.items())


def logits_of(rows: list[tuple[int, float]]) -> torch.Tensor:
    """Return logits of three classes whose predicted class has this probability, the others the same."""
    probabilities = torch.tensor([[(1 - p) / 2] * 3 for _, p in rows], dtype=torch.float64)
    for row, (label, p) in enumerate(rows):
        probabilities[row, label] = p
    return probabilities.log()


def test_pseudo_labels_take_the_same_share_of_every_predicted_class() -> None:
    easy = [(0, 0.99), (0, 0.97), (0, 0.96), (0, 0.5)]
    hard = [(1, 0.6), (1, 0.7), (1, 0.55), (1, 0.5)]
    # 3 of 8 answers are sure: 1.5 images of each class, so that two are taken.
    assert pseudo_labels(logits_of([*easy, *hard]), 0.9).tolist() == [0, 0, -1, -1, 1, 1, -1, -1]
    assert pseudo_labels(logits_of([*easy, *hard]), 0.4).tolist() == [0] * 4 + [1] * 4


def test_an_unsure_network_begins_with_its_surest_answers() -> None:
    labels = pseudo_labels(logits_of([(2, 0.4 + 0.001 * row) for row in range(40)]), 0.99)
    assert (labels == 2).nonzero()[:, 0].tolist() == list(range(40 - round(40 * LEAST_SHARE), 40))


def test_equally_sure_answers_count_in_the_order_of_the_images() -> None:
    assert pseudo_labels(logits_of([(0, 0.5)] * 20), 0.9).tolist() == [0, 0] + [NO_LABEL] * 18


def test_a_training_that_diverges_is_said_with_the_setting(adapted: nn.Module) -> None:
    images = changed(bright_quadrants(64, seed=3))
    labels = torch.from_numpy(bright_quadrants(64, seed=3).labels)
    with pytest.raises(KingletError, match="diverged in epoch") as caught:
        fine_tune(adapted, images, labels, replace(RECIPE, learning_rate=1e30), CPU)
    assert "adapt.learning_rate" in caught.value.hint
