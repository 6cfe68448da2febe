"""Depth pruning: whole residual blocks leave the network, those first that change its answers least."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from kinglet.models.inverted_residual import InvertedResidualNet, read_spec


def removable_blocks(network: nn.Module) -> list[int]:
    """Return the indices of the blocks around which there is an identity; none for other kinds of network."""
    if not isinstance(network, InvertedResidualNet):
        return []
    return [index for index, block in enumerate(network.spec.blocks) if block.has_skip]


def remove_blocks(network: nn.Module, inputs: Tensor, n_blocks: int) -> nn.Module:
    """Return a network without the `n_blocks` blocks that change the answers to `inputs` least.

    network: in evaluation mode, with at least `n_blocks` removable blocks. inputs: float32 (n, channels,
    height, width). One block goes at a time and the rest is measured again: the damage of two blocks is not
    the sum of theirs.
    Source: Elkerdawy et al. 2020, "To Filter Prune, or to Layer Prune, That Is The Question" (one-shot layer
    pruning), with the divergence of the answers as importance.
    Raises ValueError if there are fewer removable blocks.
    """
    if n_blocks > len(removable_blocks(network)):
        raise ValueError(f"{n_blocks} blocks are to go, but only {len(removable_blocks(network))} can")
    with torch.inference_mode():
        answers = functional.log_softmax(network(inputs), dim=1)
    for _ in range(n_blocks):
        network = min(
            (without_block(network, index) for index in removable_blocks(network)),
            key=lambda smaller: damage(smaller, inputs, answers),
        )
    return network


def without_block(network: nn.Module, index: int) -> InvertedResidualNet:
    """Return a copy of a network of inverted residual blocks without block `index`, in evaluation mode."""
    if not isinstance(network, InvertedResidualNet):
        raise TypeError(f"{type(network).__name__} has no blocks that can be removed")
    spec = read_spec(network)
    kept = [number for number in range(len(spec.blocks)) if number != index]
    smaller = InvertedResidualNet(replace(spec, blocks=tuple(spec.blocks[number] for number in kept)))
    new_number = {old: new for new, old in enumerate(kept)}
    state = {}
    for name, value in network.state_dict().items():
        part, _, rest = name.partition(".")
        if part != "blocks":
            state[name] = value.clone()
            continue
        number, _, rest = rest.partition(".")
        if int(number) != index:
            state[f"blocks.{new_number[int(number)]}.{rest}"] = value.clone()
    smaller.load_state_dict(state)
    return smaller.eval()


@torch.inference_mode()
def damage(network: nn.Module, inputs: Tensor, answers: Tensor) -> float:
    """Return the mean divergence of a network's answers from `answers`, log probabilities (n, n_classes), in nats."""
    log_probabilities = functional.log_softmax(network(inputs), dim=1)
    return float(functional.kl_div(log_probabilities, answers, reduction="batchmean", log_target=True))
