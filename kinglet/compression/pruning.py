"""Structured pruning: whole channels leave the network, along its dependency graph of layers.

Source: Fang et al. 2023, "DepGraph: Towards Any Structural Pruning" (the graph, group L2 importance);
Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", equation 8 (Taylor);
LeCun et al. 1989, "Optimal Brain Damage" (second order, the Hessian's diagonal by squared gradients);
Fang et al. 2024, "Isomorphic Pruning for Vision Models" (groups of one shape compete with each other).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn import functional

from kinglet.models.detector import Detector
from kinglet.models.registry import architecture_of, rebuild
from kinglet.models.segmenter import Segmenter

# Inputs, float32 (n, channels, height, width), and the n targets that a loss knows.
Batch = tuple[Tensor, Any]
# Of what a network returns for a batch and of its targets, to a single number.
BatchLoss = Callable[[Any, Any], Tensor]

IMPORTANCES: dict[str, Callable[[], torch_pruning.importance.Importance]] = {
    "l2": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2),
    "taylor": torch_pruning.importance.GroupTaylorImportance,
    "hessian": torch_pruning.importance.GroupHessianImportance,
}
# "layer": every group loses the same share. "global": groups of the same shape compete for what stays.
SCOPES = ("layer", "global")
# Which multiple of the step stays: "down", the largest that is no more than asked for, or "nearest", which takes less
# from narrow layers: 40 channels without three tenths are 28, and to a step of 16 these become 16 or 32.
ROUNDINGS = ("down", "nearest")
# Where groups compete, the most that one of them may lose.
MOST_OF_A_GROUP = 0.9
# Second order takes a backward pass for every single example.
HESSIAN_EXAMPLES = 64


def prune_channels(
    network: nn.Module,
    example: Tensor,
    channel_share: float,
    importance: str,
    round_to: int,
    batches: Sequence[Batch] = (),
    scope: str = "layer",
    n_steps: int = 1,
    loss: BatchLoss = functional.cross_entropy,
    rounding: str = "down",
) -> nn.Module:
    """Return a copy of `network` without `channel_share` of the channels of its prunable groups.

    example: float32 input (n, channels, height, width) to trace the graph with. importance: a key of `IMPORTANCES`;
    "taylor" and "hessian" need `batches` of (inputs, targets) for gradients. loss: of what the network returns and the
    targets, which are a tensor or a sequence, one for each input. round_to: the channels that stay are a multiple of
    it, which one says `rounding`, one of `ROUNDINGS`. scope: one of `SCOPES`. n_steps: cuts in which the channels
    leave; importance and batch normalization are measured anew before each. What the last layers answer stays, and
    every layer keeps channels. The result is rebuilt from its architecture as data, so that it is known to reload.
    Raises ValueError for an importance, scope or rounding that is not known or an importance that lacks its batches.
    """
    if importance not in IMPORTANCES:
        raise ValueError(f"importance must be one of {', '.join(IMPORTANCES)}, got {importance!r}")
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding must be one of {', '.join(ROUNDINGS)}, got {rounding!r}")
    if importance in NEED_GRADIENTS and not batches:
        raise ValueError(f"{importance} importance needs batches to take gradients from")
    pruned = copy.deepcopy(network).eval().requires_grad_(True)
    measure = IMPORTANCES[importance]()
    pruner_of = RoundingToNearest if rounding == "nearest" else torch_pruning.pruner.MetaPruner
    pruner = pruner_of(
        pruned,
        example,
        importance=measure,
        pruning_ratio=channel_share,
        global_pruning=scope == "global",
        isomorphic=scope == "global",
        max_pruning_ratio=MOST_OF_A_GROUP if scope == "global" else 1.0,
        iterative_steps=n_steps,
        ignored_layers=answering_layers(pruned),
        round_to=round_to,
    )
    for step in range(n_steps):
        if step and batches:
            reestimate_batch_norms(pruned, [inputs for inputs, _ in batches])
        if importance in NEED_GRADIENTS:
            NEED_GRADIENTS[importance](pruned, measure, batches, loss)
        pruner.step()
    pruned.zero_grad(set_to_none=True)
    return rebuild(architecture_of(pruned), pruned.state_dict())


class RoundingToNearest(torch_pruning.pruner.MetaPruner):
    """A pruner that leaves the multiple of the step that is nearest to what was asked for, the larger of two."""

    def _round_to(self, n_pruned: int, current_channels: int, round_to: int) -> int:
        """Return how many of the channels go; at least one step stays, and never more than there are."""
        steps = max(1, (2 * (current_channels - n_pruned) + round_to) // (2 * round_to))
        return max(0, current_channels - steps * round_to)


def answering_layers(network: nn.Module) -> list[nn.Module]:
    """Return the layers whose channels are the network's answer: nothing of them can go."""
    if isinstance(network, Detector | Segmenter):
        return network.answering_layers()
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


def _accumulate_gradients(
    network: nn.Module, measure: torch_pruning.importance.Importance, batches: Sequence[Batch], loss: BatchLoss
) -> None:
    del measure
    network.zero_grad(set_to_none=True)
    for inputs, targets in batches:
        loss(network(inputs), targets).backward()


def _accumulate_squared_gradients(
    network: nn.Module, measure: torch_pruning.importance.Importance, batches: Sequence[Batch], loss: BatchLoss
) -> None:
    measure.zero_grad()
    left = HESSIAN_EXAMPLES
    for inputs, targets in batches:
        for place in range(min(left, len(inputs))):
            network.zero_grad(set_to_none=True)
            loss(network(inputs[place : place + 1]), targets[place : place + 1]).backward()
            measure.accumulate_grad(network)
        left = max(0, left - len(inputs))


NEED_GRADIENTS = {"taylor": _accumulate_gradients, "hessian": _accumulate_squared_gradients}


@torch.no_grad()
def reestimate_batch_norms(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of every batch normalization to the mean over `batches` of inputs.

    Channels that are gone change what the later layers see.
    Source: Li et al. 2020, "EagleEye: Fast Sub-net Evaluation", adaptive batch normalization.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean over all batches
    network.train()
    for inputs in batches:
        network(inputs)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
