"""Going on with a trained network on images of the target domain: the scales and shifts of its normalizations."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kinglet.adaptation.batch_norm import batch_norms
from kinglet.data.batches import count_batches, shuffled_batches, standardize
from kinglet.data.views import Views
from kinglet.errors import KingletError
from kinglet.reporting import Report, silent
from kinglet.training.losses import NO_LABEL, label_loss
from kinglet.training.schedules import WeightAverage, cosine_with_warmup

WARMUP = 0.1


@dataclass(frozen=True)
class TargetImages:
    """Images of the target domain as a network takes them.

    packed: uint8 (n, size, size, channels), or clips (n, frames, size, size, channels). mean, std: one value per
    channel, of pixels in [0, 1].
    """

    packed: NDArray[np.uint8]
    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class AdaptationRecipe:
    """How a trained network goes on. augment: names of augmentations. ema_decay: of the average of weights."""

    epochs: int
    batch_size: int
    learning_rate: float
    ema_decay: float
    augment: tuple[str, ...]
    seed: int


# From the average of the weights so far to the labels of all images, int64 (n,); NO_LABEL: not to be learnt from.
Labelling = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class Lesson:
    """What an epoch teaches.

    positions: of the examples that it shows, int64 (n,). show: from some of them to the network's input, and what the
    loss needs to know of it. loss: of what the network returns and that.
    """

    positions: NDArray[np.int64]
    show: Callable[[NDArray[np.int64]], tuple[Tensor, Any]]
    loss: Callable[[Any, Any], Tensor]


# From the number of an epoch, and the average of the weights so far, to what it teaches.
Lessons = Callable[[int, nn.Module], Lesson]


def train_normalizations(
    network: nn.Module,
    n_examples: int,
    lessons: Lessons,
    recipe: AdaptationRecipe,
    device: torch.device,
    report: Report = silent,
) -> nn.Module:
    """Return the average of the weights of a network that goes on learning, on the CPU in evaluation mode.

    n_examples: that an epoch shows at most. Trained are the scales and shifts of the batch normalizations alone, a
    few hundred numbers that a few images cannot spoil. The statistics stay as they are: a batch of few images, or of
    few classes, has statistics of its own.
    The network itself is left as it was.
    Raises KingletError if the loss stops being a number.
    Source: Rusak et al. 2022, "If your data distribution shifts, use self-learning", for what is trained.
    """
    network = copy.deepcopy(network).requires_grad_(False)
    norms = batch_norms(network)
    for norm in norms:
        norm.requires_grad_(True)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = WeightAverage(network, recipe.ema_decay)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=0)
    steps_per_epoch = count_batches(n_examples, recipe.batch_size)
    total_steps = recipe.epochs * steps_per_epoch
    for epoch in range(recipe.epochs):
        lesson = lessons(epoch, average.network)
        network.train()
        for norm in norms:
            norm.eval()
        # Dropout draws from torch's own generator, everything else from this one.
        torch.manual_seed(recipe.seed * 100_003 + epoch)
        generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
        for step, chosen in enumerate(shuffled_batches(len(lesson.positions), recipe.batch_size, generator)):
            done = epoch * steps_per_epoch + step
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * cosine_with_warmup(done, total_steps, WARMUP)
            inputs, shown = lesson.show(lesson.positions[chosen])
            value = lesson.loss(network(inputs), shown)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            average.update()
            if not math.isfinite(value.item()):
                raise KingletError(
                    f"The adaptation diverged in epoch {epoch + 1}: the loss is {value.item()}.",
                    "Lower adapt.learning_rate in params.yaml.",
                )
            report(done + 1, total_steps, f"epoch {epoch + 1}/{recipe.epochs} loss {value.item():.3f}")
    return average.network.cpu().eval()


def go_on(
    network: nn.Module,
    images: TargetImages,
    labelling: Labelling,
    recipe: AdaptationRecipe,
    device: torch.device,
    report: Report = silent,
) -> nn.Module:
    """Return a classifier after going on with images of the target, on the CPU in evaluation mode.

    labelling is asked anew before every epoch. The rest is as `train_normalizations` says.
    """
    rows = np.arange(len(images.packed))
    views = Views(recipe.augment, len(rows), recipe.epochs, recipe.seed)

    def lessons(epoch: int, average: nn.Module) -> Lesson:
        labels = labelling(average)
        loss, of_epoch = label_loss(labels, 0.0), views.of_epoch(epoch)

        def show(positions: NDArray[np.int64]) -> tuple[Tensor, Any]:
            pixels, shown = views.show(images.packed, rows, positions, of_epoch[positions], device)
            return standardize(pixels, images.mean, images.std), shown

        return Lesson(np.flatnonzero((labels != NO_LABEL).numpy()), show, loss)

    return train_normalizations(network, len(rows), lessons, recipe, device, report)


def fine_tune(
    network: nn.Module,
    images: TargetImages,
    labels: Tensor,
    recipe: AdaptationRecipe,
    device: torch.device,
    report: Report = silent,
) -> nn.Module:
    """Return the network after learning from a few labelled images, on the CPU in evaluation mode.

    labels: int64 (n,), of all images.
    """
    return go_on(network, images, lambda _: labels, recipe, device, report)
