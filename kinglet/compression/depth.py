"""Depth pruning: whole residual blocks leave the network, those first that cost the answers least.

Source: Elkerdawy et al. 2020, "To Filter Prune, or to Layer Prune, That Is The Question", with the divergence
of the answers as importance. Two prices are known: the damage alone, and the damage per time that is saved.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from kinglet.compression.latency import Latency, is_faster
from kinglet.models import inverted_residual, residual_cnn
from kinglet.models.inverted_residual import InvertedResidualNet
from kinglet.models.registry import architecture_of
from kinglet.models.residual_cnn import ResidualCnn


@dataclass(frozen=True)
class Removal:
    """A block that left: its index in the network at that time, what that cost, and what it saved.

    damage: of the answers, in nats. saved_ms: the median latency without the block, less than with it.
    """

    index: int
    damage: float
    saved_ms: float


def removable_blocks(network: nn.Module) -> list[int]:
    """Return the indices of the blocks around which there is an identity; none for other kinds of network."""
    if isinstance(network, InvertedResidualNet):
        return [index for index, block in enumerate(network.spec.blocks) if block.has_skip]
    if isinstance(network, ResidualCnn):
        return list(range(sum(len(stage.inner) for stage in network.spec.stages)))
    return []


def remove_blocks(network: nn.Module, inputs: Tensor, n_blocks: int) -> nn.Module:
    """Return a network without the `n_blocks` blocks that change the answers to `inputs` least.

    network: in evaluation mode, with at least `n_blocks` removable blocks. inputs: float32 (n, channels,
    height, width). One block goes at a time and the rest is measured again: the damage of two blocks is not
    the sum of theirs.
    Raises ValueError if there are fewer removable blocks.
    """
    refuse_too_many(network, n_blocks)
    answers = log_answers(network, inputs)
    for _ in range(n_blocks):
        network = min(
            (without_block(network, index) for index in removable_blocks(network)),
            key=lambda smaller: damage(smaller, inputs, answers),
        )
    return network


def remove_slow_blocks(
    network: nn.Module,
    n_blocks: int,
    damage_of: Callable[[nn.Module], float],
    latencies_of: Callable[[Sequence[nn.Module]], list[Latency]],
) -> tuple[nn.Module, list[Removal]]:
    """Return a network without up to `n_blocks` blocks, and what each of them cost: least damage per time saved.

    damage_of: what a smaller network's answers have lost, in nats. latencies_of: of networks, measured together.
    One block goes at a time and the rest is measured again. A block stays if the network is not faster without it
    beyond doubt; once that holds for all that are left, fewer blocks leave than were to.
    Raises ValueError if there are fewer removable blocks.
    """
    refuse_too_many(network, n_blocks)
    removals: list[Removal] = []
    while len(removals) < n_blocks:
        smaller = {index: without_block(network, index) for index in removable_blocks(network)}
        saved = saved_times(network, smaller, latencies_of)
        if not saved:
            break
        damages = {index: damage_of(smaller[index]) for index in saved}
        # A damage of nothing at all makes the time decide.
        chosen = min(saved, key=lambda index: (max(damages[index], 1e-9) / saved[index], index))
        removals.append(Removal(chosen, damages[chosen], saved[chosen]))
        network = smaller[chosen]
    return network, removals


def saved_times(
    network: nn.Module,
    smaller: dict[int, nn.Module],
    latencies_of: Callable[[Sequence[nn.Module]], list[Latency]],
) -> dict[int, float]:
    """Return the milliseconds that each of the smaller networks saves, of those that are faster beyond doubt."""
    # Blocks of one shape leave networks of one shape: one of them is measured for all.
    shapes = {index: json.dumps(architecture_of(one), sort_keys=True) for index, one in smaller.items()}
    of_shape = {shape: smaller[index] for index, shape in shapes.items()}
    whole, *rest = latencies_of([network, *of_shape.values()])
    latency = dict(zip(of_shape, rest, strict=True))
    return {
        index: whole.value - latency[shape].value for index, shape in shapes.items() if is_faster(latency[shape], whole)
    }


def refuse_too_many(network: nn.Module, n_blocks: int) -> None:
    """Raise ValueError if a network has fewer removable blocks than are to go."""
    if n_blocks > len(removable_blocks(network)):
        raise ValueError(f"{n_blocks} blocks are to go, but only {len(removable_blocks(network))} can")


def without_block(network: nn.Module, index: int) -> nn.Module:
    """Return a copy of a network without its removable block `index`, in evaluation mode.

    Raises TypeError for a network without such blocks.
    """
    if isinstance(network, InvertedResidualNet):
        return _without_inverted_block(network, index)
    if isinstance(network, ResidualCnn):
        return _without_residual_block(network, index)
    raise TypeError(f"{type(network).__name__} has no blocks that can be removed")


def _without_inverted_block(network: InvertedResidualNet, index: int) -> InvertedResidualNet:
    spec = inverted_residual.read_spec(network)
    blocks = spec.blocks[:index] + spec.blocks[index + 1 :]
    smaller = InvertedResidualNet(replace(spec, blocks=blocks))
    smaller.load_state_dict(_state_without(network, "blocks", index))
    return smaller.eval()


def _without_residual_block(network: ResidualCnn, index: int) -> ResidualCnn:
    spec = residual_cnn.read_spec(network)
    stage = 0
    while index >= len(spec.stages[stage].inner):
        index -= len(spec.stages[stage].inner)
        stage += 1
    inner = spec.stages[stage].inner
    shorter = replace(spec.stages[stage], inner=inner[:index] + inner[index + 1 :])
    smaller = ResidualCnn(replace(spec, stages=(*spec.stages[:stage], shorter, *spec.stages[stage + 1 :])))
    smaller.load_state_dict(_state_without(network, f"stages.{stage}.blocks", index))
    return smaller.eval()


def _state_without(network: nn.Module, blocks: str, index: int) -> dict[str, Tensor]:
    """Return the network's state without entry `index` of the list `blocks`, those after it moved up by one."""
    state = {}
    for name, value in network.state_dict().items():
        if not name.startswith(f"{blocks}."):
            state[name] = value.clone()
            continue
        number, _, rest = name.removeprefix(f"{blocks}.").partition(".")
        if int(number) != index:
            state[f"{blocks}.{int(number) - (int(number) > index)}.{rest}"] = value.clone()
    return state


@torch.inference_mode()
def log_answers(network: nn.Module, inputs: Tensor) -> Tensor:
    """Return a network's log probabilities, float32 (n, n_classes)."""
    return functional.log_softmax(network(inputs), dim=1)


def damage(network: nn.Module, inputs: Tensor, answers: Tensor) -> float:
    """Return the mean divergence of a network's answers from `answers`, log probabilities (n, n_classes), in nats."""
    log_probabilities = log_answers(network, inputs)
    return float(functional.kl_div(log_probabilities, answers, reduction="batchmean", log_target=True))
