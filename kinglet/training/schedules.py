"""Learning-rate schedules and averages of weights over a training."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn


def cosine_with_warmup(step: int, total_steps: int, warmup: float) -> float:
    """Return the factor in (0, 1] of the learning rate at `step` of `total_steps`.

    Rises linearly over the share `warmup` of the steps, then falls as a half cosine to zero.
    Source: Loshchilov and Hutter 2017, "SGDR", equation 5, one cycle.
    """
    warmup_steps = max(1, round(warmup * total_steps))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class EpochBudget:
    """What a training may cost where nobody says its epochs: pixels that pass through the network."""

    pixels: float
    fewest: float
    most: float

    def epochs(self, n_examples: int, pixels_per_example: float) -> float:
        """Return the epochs that the budget pays for, within [fewest, most], to the tenth.

        A training of few photographs then takes about as long as one of many small pictures.
        """
        return round(min(max(self.pixels / (n_examples * pixels_per_example), self.fewest), self.most), 1)


class WeightAverage:
    """Exponential moving average of a network's weights and batch-normalization statistics.

    Early steps use a shorter memory, so that a short training is not held back by its first weights.
    Source: Polyak and Juditsky 1992; the warm-up of the decay follows tf.train.ExponentialMovingAverage.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self._floats, self._sources, self._others = _pair_tensors(self.network, network)

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the network's weights of now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._floats, self._sources, 1 - decay)
        for average, value in self._others:
            average.copy_(value)


def _pair_tensors(
    average: nn.Module, source: nn.Module
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[tuple[torch.Tensor, torch.Tensor]]]:
    # Not from the state dicts: a tensor that two layers share stands there twice, and would be averaged twice.
    means, values = ([*network.parameters(), *network.buffers()] for network in (average, source))
    pairs = [(mean.detach(), value.detach()) for mean, value in zip(means, values, strict=True)]
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    others = [pair for pair in pairs if not pair[0].is_floating_point()]
    return [average for average, _ in floats], [source for _, source in floats], others


def layerwise_groups(
    parts: list[nn.Module], learning_rate: float, layer_decay: float, weight_decay: float
) -> list[dict[str, object]]:
    """Return optimizer groups whose learning rate falls by `layer_decay` per part from the output back.

    Weights of convolutions and linear layers decay; normalization parameters and biases do not.
    Source: Howard and Ruder 2018, "Universal Language Model Fine-tuning", discriminative fine-tuning.
    """
    groups: list[dict[str, object]] = []
    for depth, part in enumerate(parts):
        rate = learning_rate * layer_decay ** (len(parts) - 1 - depth)
        parameters = [parameter for parameter in part.parameters() if parameter.requires_grad]
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
        for members, decay in ((matrices, weight_decay), (vectors, 0.0)):
            if members:
                groups.append({"params": members, "lr": rate, "initial_lr": rate, "weight_decay": decay})
    return groups
