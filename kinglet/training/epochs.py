"""The training loop, one for all: epochs at given resolutions, a falling learning rate, the best weights kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kinglet.data.batches import count_batches, shuffled_batches
from kinglet.errors import KingletError
from kinglet.reporting import Report, silent
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.devices import autocast
from kinglet.training.parallel import ALONE, Team
from kinglet.training.schedules import WeightAverage, cosine_with_warmup, layerwise_groups


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

    @property
    def facts(self) -> dict[str, Any]:
        """What decides a training, JSON-ready."""
        return asdict(self)


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


@dataclass(frozen=True)
class Objective:
    """What a network learns from, and what says how well it has.

    show: (epoch, positions of examples, int64 (n,)) → the network's input, and what the loss needs to know of it; the
    same for the same arguments. loss: of what the network returns and that. score: of a network on validation images,
    higher is better. score_name: what the history calls it. slack: how far below the highest score one may lie that
    is as good.
    """

    n_examples: int
    show: Callable[[Epoch, NDArray[np.int64]], tuple[Tensor, Any]]
    loss: Callable[[Any, Any], Tensor]
    score: Callable[[nn.Module], float]
    score_name: str
    slack: Callable[[float], float]


def train(
    network: nn.Module,
    objective: Objective,
    recipe: Recipe,
    *,
    device: torch.device,
    team: Team = ALONE,
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train `network` and return its best averaged weights as a network, and the history by epoch.

    The best are those of the last epoch that is as good as the one with the highest score.

    The result does not depend on whether the training was interrupted: every epoch draws its order from the
    seed and its own number.
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
    epochs = plan_epochs(recipe, objective.n_examples)
    total_steps = epochs[-1].first_step + epochs[-1].steps
    trained = team.replicated(network, device)
    history: list[dict[str, float]] = []
    name = objective.score_name
    best: dict[str, Any] = {name: -1.0, "epoch": -1, "weights": None}

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
            trained, average, optimizer, objective, recipe, epoch, total_steps, device, team, report_step
        )
        score = team.told(objective.score(average.network) if team.leads else 0.0, device)
        history.append({"epoch": epoch.index + 1, "input_size": epoch.input_size, "loss": train_loss, name: score})
        report_step(epoch.steps, f"loss {train_loss:.3f} validation {name} {score:.4f}")
        if score >= best[name]:
            best |= {name: score, "epoch": epoch.index}
        if score >= best[name] - objective.slack(best[name]):
            best["weights"] = {key: value.cpu().clone() for key, value in average.network.state_dict().items()}
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


def _train_epoch(
    network: nn.Module,
    average: WeightAverage,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    recipe: Recipe,
    epoch: Epoch,
    total_steps: int,
    device: torch.device,
    team: Team,
    report_step: Callable[[int, str], None],
) -> float:
    # Dropout draws from torch's own generator, and in every process of a team anew; everything else from this one.
    torch.manual_seed(recipe.seed * 100_003 + epoch.index + 1_000_003 * team.rank)
    generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch.index)
    network.train()
    losses = []
    order = shuffled_batches(objective.n_examples, recipe.batch_size, generator)
    for step, positions in zip(range(epoch.steps), order, strict=False):
        factor = cosine_with_warmup(epoch.first_step + step, total_steps, recipe.warmup)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        inputs, shown = objective.show(epoch, team.share(positions))
        with autocast(device, recipe.precision):
            outputs = network(inputs)
        value = objective.loss(in_single_precision(outputs), shown)
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
    """Return what a network returned, logits alone or with more, as float32."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    return tuple(output.float() for output in outputs)
