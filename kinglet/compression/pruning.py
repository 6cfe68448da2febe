"""Structured pruning: whole channels leave the network, along its dependency graph of layers.

Source: Fang et al. 2023, "DepGraph: Towards Any Structural Pruning" (the graph, group L2 importance);
Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", equation 8 (Taylor).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn import functional

from kinglet.models.registry import architecture_of, rebuild

IMPORTANCES: dict[str, Callable[[], torch_pruning.importance.Importance]] = {
    "l2": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2),
    "taylor": torch_pruning.importance.GroupTaylorImportance,
}


def prune_channels(
    network: nn.Module,
    example: Tensor,
    channel_share: float,
    importance: str,
    round_to: int,
    batches: Iterable[tuple[Tensor, Tensor]] = (),
) -> nn.Module:
    """Return a copy of `network` without `channel_share` of the channels of every prunable group.

    example: float32 input (n, channels, height, width) to trace the graph with. importance: a key of
    `IMPORTANCES`; "taylor" needs `batches` of (inputs, labels) for gradients. round_to: the channels
    that stay are a multiple of it. The classes of the last layer stay, and every layer keeps channels.
    The result is rebuilt from its architecture as data, so that it is known to reload.
    Raises ValueError for an importance that is not known or that lacks its batches.
    """
    if importance not in IMPORTANCES:
        raise ValueError(f"importance must be one of {', '.join(IMPORTANCES)}, got {importance!r}")
    pruned = copy.deepcopy(network).eval().requires_grad_(True)
    if importance == "taylor":
        _accumulate_gradients(pruned, batches)
    pruner = torch_pruning.pruner.MetaPruner(
        pruned,
        example,
        importance=IMPORTANCES[importance](),
        pruning_ratio=channel_share,
        ignored_layers=[module for module in pruned.modules() if isinstance(module, nn.Linear)],
        round_to=round_to,
    )
    pruner.step()
    pruned.zero_grad(set_to_none=True)
    return rebuild(architecture_of(pruned), pruned.state_dict())


def _accumulate_gradients(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    network.zero_grad(set_to_none=True)
    n_batches = 0
    for inputs, labels in batches:
        functional.cross_entropy(network(inputs), labels).backward()
        n_batches += 1
    if not n_batches:
        raise ValueError("Taylor importance needs batches to take gradients from")


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
