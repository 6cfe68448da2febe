"""The training loop, one for teachers and students: epochs at given resolutions, the best weights kept."""

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

from kinglet.data.batches import count_batches, gather, shuffled_batches, standardize
from kinglet.data.views import Views
from kinglet.errors import KingletError
from kinglet.reporting import Report, silent
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.devices import autocast
from kinglet.training.losses import Loss
from kinglet.training.parallel import ALONE, Team
from kinglet.training.schedules import WeightAverage, cosine_with_warmup, layerwise_groups

# Most images and pixels in a batch when nothing is learnt: memory then does not grow with the resolution.
EVALUATION_BATCH, EVALUATION_PIXELS = 512, 1 << 21


@dataclass(frozen=True)
class ImageSet:
    """Images of one data set at several resolutions, with the rows and labels of a part of them.

    packed: edge length → uint8 (n, size, size, channels). rows: int64 (n_examples,) into `packed`.
    labels: int64 (n_examples,).
    """

    packed: dict[int, NDArray[np.uint8]]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    phases: (epochs, input size in pixels), one after the other; fractions of an epoch are allowed.
    learning_rate: of the last layer; earlier ones get `layer_decay` less per part. warmup: share of the
    steps. ema_decay: of the average of weights. patience: epochs without a better validation accuracy
    until the training stops. augment, views: names of augmentations, and in how many ways they show an image;
    None for a new way in every epoch.
    """

    phases: tuple[tuple[float, int], ...]
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup: float
    layer_decay: float
    ema_decay: float
    patience: int
    augment: tuple[str, ...]
    precision: str
    seed: int
    views: int | None = None


@dataclass(frozen=True)
class Epoch:
    """One part of the schedule between two checkpoints."""

    index: int
    share: float
    input_size: int
    first_step: int
    steps: int


def plan_epochs(recipe: Recipe, n_examples: int) -> list[Epoch]:
    """Return the epochs of a recipe; the last of a phase may be a fraction."""
    epochs: list[Epoch] = []
    first_step = 0
    for phase_epochs, input_size in recipe.phases:
        for number in range(math.ceil(phase_epochs)):
            share = min(1.0, phase_epochs - number)
            steps = max(1, round(share * count_batches(n_examples, recipe.batch_size)))
            epochs.append(Epoch(len(epochs), share, input_size, first_step, steps))
            first_step += steps
    return epochs


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
    """Train `network` and return its best averaged weights as a network, and the history by epoch.

    The best are those of the last epoch whose validation accuracy is within one standard error of the highest:
    on a few hundred images an epoch in mid-schedule has the highest by luck, and what came after is better.
    Source: Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3 (the one-standard-error rule).

    The result does not depend on whether the training was interrupted: every epoch draws its order from the
    seed and its own number, and an image's views are always the same.
    team: other processes that call this with the same arguments, each on its own device; what the leader returns,
    and keeps in its checkpoint, counts.
    Raises KingletError if the loss stops being a number.
    """
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = WeightAverage(network, recipe.ema_decay)
    groups = layerwise_groups(
        network.depth_groups(),  # type: ignore[operator]
        recipe.learning_rate,
        recipe.layer_decay,
        recipe.weight_decay,
    )
    optimizer = torch.optim.AdamW(groups, fused=device.type != "mps")
    epochs = plan_epochs(recipe, len(training.rows))
    total_steps = epochs[-1].first_step + epochs[-1].steps
    views = Views(recipe.augment, len(training.rows), recipe.views or len(epochs), recipe.seed)
    trained = team.replicated(network, device)
    history: list[dict[str, float]] = []
    best: dict[str, Any] = {"accuracy": -1.0, "epoch": -1, "weights": None}

    state = checkpoint.load() if checkpoint else None
    if state:
        network.load_state_dict(state["network"])
        average.network.load_state_dict(state["average"])
        average.updates = state["updates"]
        optimizer.load_state_dict(state["optimizer"])
        history, best = state["history"], state["best"]

    for epoch in epochs[len(history) :]:
        if epoch.index - best["epoch"] > recipe.patience and best["epoch"] >= 0:
            break

        def report_step(step: int, text: str, epoch: Epoch = epoch) -> None:
            report(epoch.first_step + step, total_steps, f"epoch {epoch.index + 1}/{len(epochs)} {text}")

        train_loss = _train_epoch(
            trained,
            average,
            optimizer,
            training,
            views,
            loss,
            recipe,
            epoch,
            total_steps,
            mean,
            std,
            device,
            team,
            report_step,
        )
        size = recipe.phases[-1][1]
        accuracy = team.told(
            accuracy_of(average.network, validation, size, mean, std, device) if team.leads else 0.0, device
        )
        history.append(
            {"epoch": epoch.index + 1, "input_size": epoch.input_size, "loss": train_loss, "accuracy": accuracy}
        )
        report_step(epoch.steps, f"loss {train_loss:.3f} validation accuracy {accuracy:.4f}")
        if accuracy >= best["accuracy"]:
            best |= {"accuracy": accuracy, "epoch": epoch.index}
        if accuracy >= best["accuracy"] - standard_error(best["accuracy"], len(validation.rows)):
            best["weights"] = {name: value.cpu().clone() for name, value in average.network.state_dict().items()}
        if checkpoint and team.leads:
            checkpoint.save(
                {
                    "network": network.state_dict(),
                    "average": average.network.state_dict(),
                    "updates": average.updates,
                    "optimizer": optimizer.state_dict(),
                    "history": history,
                    "best": best,
                }
            )
    result = copy.deepcopy(average.network).cpu().eval()
    result.load_state_dict(best["weights"])
    return result, history


def accuracy_of(
    network: nn.Module, images: ImageSet, size: int, mean: list[float], std: list[float], device: torch.device
) -> float:
    """Return the share of images, [0, 1], that a network takes for what they are, at this edge length."""
    logits = predict(network, images.packed[size], images.rows, mean, std, device)
    return float((logits.argmax(1).numpy() == images.labels).mean())


def standard_error(accuracy: float, n_images: int) -> float:
    """Return the standard error of an accuracy, [0, 1], measured on this many images."""
    return math.sqrt(accuracy * (1 - accuracy) / n_images)


def _train_epoch(
    network: nn.Module,
    average: WeightAverage,
    optimizer: torch.optim.Optimizer,
    training: ImageSet,
    views: Views,
    loss: Loss,
    recipe: Recipe,
    epoch: Epoch,
    total_steps: int,
    mean: list[float],
    std: list[float],
    device: torch.device,
    team: Team,
    report_step: Callable[[int, str], None],
) -> float:
    # Dropout draws from torch's own generator, and in every process of a team anew; everything else from this one.
    torch.manual_seed(recipe.seed * 100_003 + epoch.index + 1_000_003 * team.rank)
    generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch.index)
    packed = training.packed[epoch.input_size]
    network.train()
    losses = []
    order = shuffled_batches(len(training.rows), recipe.batch_size, generator)
    view_of = views.of_epoch(epoch.index)
    for step, positions in zip(range(epoch.steps), order, strict=False):
        factor = cosine_with_warmup(epoch.first_step + step, total_steps, recipe.warmup)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        part = team.share(positions)
        pixels, shown = views.show(packed, training.rows, part, view_of[part], device)
        with autocast(device, recipe.precision):
            outputs = network(standardize(pixels, mean, std))
        value = loss(in_single_precision(outputs), shown)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        average.update()
        losses.append(team.mean(value.item(), device))
        if not math.isfinite(losses[-1]):
            raise KingletError(
                f"The training diverged in epoch {epoch.index + 1}: the loss is {losses[-1]}.",
                "Lower the learning_rate of this step in params.yaml.",
            )
        report_step(step + 1, f"loss {losses[-1]:.3f}")
    return float(np.mean(losses))


def in_single_precision(outputs: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    """Return what a network returned, logits alone or with maps, as float32."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    return tuple(output.float() for output in outputs)


def evaluation_batch(input_size: int) -> int:
    """Return how many images of this edge length pass through the network at once when nothing is learnt."""
    return min(EVALUATION_BATCH, max(8, EVALUATION_PIXELS // input_size**2))


@torch.inference_mode()
def predict(
    network: nn.Module,
    packed: NDArray[np.uint8],
    rows: NDArray[np.int64],
    mean: list[float],
    std: list[float],
    device: torch.device,
) -> Tensor:
    """Return the logits, float32 (len(rows), n_classes) on the CPU, of packed images."""
    network.eval()
    outputs = []
    batch_size = evaluation_batch(packed.shape[1])
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
