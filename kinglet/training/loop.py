"""How classifiers are trained, teachers and students alike, and how their answers are asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kinglet.data.batches import gather, images_in_a_row, standardize
from kinglet.data.views import Shown, Views
from kinglet.reporting import Report, silent
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.epochs import Epoch, Objective, Recipe, plan_epochs, train
from kinglet.training.losses import Loss
from kinglet.training.parallel import ALONE, Team

# Most images and pixels in a batch when nothing is learnt: memory then does not grow with the resolution.
EVALUATION_BATCH, EVALUATION_PIXELS = 512, 1 << 21


@dataclass(frozen=True)
class ImageSet:
    """Images of one data set at several resolutions, with the rows and labels of a part of them.

    packed: edge length → uint8 (n, size, size, channels); of clips uint8 (n, frames, size, size, channels).
    rows: int64 (n_examples,) into `packed`. labels: int64 (n_examples,).
    """

    packed: dict[int, NDArray[np.uint8]]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]


def fit(
    network: nn.Module,
    training: ImageSet,
    validation: ImageSet,
    loss: Loss,
    recipe: Recipe,
    *,
    mean: list[float],
    std: list[float],
    device: torch.device,
    team: Team = ALONE,
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train the classifier `network` and return its best averaged weights as a network, and the history by epoch.

    The best are those of the last epoch whose validation accuracy is within one standard error of the highest:
    on a few hundred images an epoch in mid-schedule has the highest by luck, and what came after is better.
    Source: Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3 (the one-standard-error rule).

    An image's views are always the same. The rest is as `train` says.
    """
    views = Views(
        recipe.augment, len(training.rows), recipe.views or len(plan_epochs(recipe, len(training.rows))), recipe.seed
    )

    def show(epoch: Epoch, positions: NDArray[np.int64]) -> tuple[Tensor, Shown]:
        packed, view_of = training.packed[epoch.input_size], views.of_epoch(epoch.index)
        pixels, shown = views.show(packed, training.rows, positions, view_of[positions], device)
        return standardize(pixels, mean, std), shown

    size = recipe.phases[-1][1]
    objective = Objective(
        n_examples=len(training.rows),
        show=show,
        loss=loss,
        score=lambda average: accuracy_of(average, validation, size, mean, std, device),
        score_name="accuracy",
        slack=lambda best: standard_error(best, len(validation.rows)),
    )
    return train(network, objective, recipe, device=device, team=team, checkpoint=checkpoint, report=report)


def accuracy_of(
    network: nn.Module, images: ImageSet, size: int, mean: list[float], std: list[float], device: torch.device
) -> float:
    """Return the share of images, [0, 1], that a network takes for what they are, at this edge length."""
    logits = predict(network, images.packed[size], images.rows, mean, std, device)
    return float((logits.argmax(1).numpy() == images.labels).mean())


def standard_error(accuracy: float, n_images: int) -> float:
    """Return the standard error of an accuracy, [0, 1], measured on this many images."""
    return math.sqrt(accuracy * (1 - accuracy) / n_images)


def evaluation_batch(input_size: int) -> int:
    """Return how many images of this edge length pass through the network at once when nothing is learnt."""
    return min(EVALUATION_BATCH, max(8, EVALUATION_PIXELS // input_size**2))


def rows_at_once(packed: NDArray[np.uint8]) -> int:
    """Return how many rows of packed images, or of clips, pass through the network at once when nothing is learnt."""
    return max(1, evaluation_batch(packed.shape[-2]) // images_in_a_row(packed))


@torch.inference_mode()
def predict(
    network: nn.Module,
    packed: NDArray[np.uint8],
    rows: NDArray[np.int64],
    mean: list[float],
    std: list[float],
    device: torch.device,
) -> Tensor:
    """Return the logits, float32 (len(rows), n_classes) on the CPU, of packed images, or of clips."""
    network.eval()
    outputs = []
    batch_size = rows_at_once(packed)
    for start in range(0, len(rows), batch_size):
        pixels = gather(packed, rows[start : start + batch_size]).to(device)
        outputs.append(network(standardize(pixels, mean, std)).float().cpu())
    return torch.cat(outputs)


def fit_head(
    network: nn.Module,
    training: ImageSet,
    input_size: int,
    n_examples: int,
    *,
    mean: list[float],
    std: list[float],
    device: torch.device,
    seed: int,
    passes: int = 10,
    report: Report = silent,
) -> None:
    """Fit the classifier alone to the features of `n_examples` training images.

    A random classifier would send noise through the pretrained layers in the first steps. The features
    are computed once, with batch statistics, which also moves the running statistics to the new images.
    Source: Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features" (linear probing first).
    """
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(training.rows), generator=generator).numpy()[:n_examples]
    network.train()
    features = []
    with torch.inference_mode():
        # Batches of nearly equal size: a last one of a single image would have no statistics.
        batches = np.array_split(chosen, math.ceil(len(chosen) / evaluation_batch(input_size)))
        for number, positions in enumerate(batches):
            pixels = gather(training.packed[input_size], training.rows[positions]).to(device)
            features.append(network.features(standardize(pixels, mean, std)).float())  # type: ignore[operator]
            report(number + 1, len(batches), "features for the classifier")
    inputs = torch.cat(features).clone()
    labels = torch.from_numpy(training.labels[chosen]).to(device)
    classifier: nn.Linear = network.classifier  # type: ignore[assignment]
    nn.init.zeros_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3, weight_decay=0.05)
    for _ in range(passes):
        for batch in torch.randperm(len(inputs), generator=generator).split(256):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(classifier(inputs[batch]), labels[batch]).backward()
            optimizer.step()
