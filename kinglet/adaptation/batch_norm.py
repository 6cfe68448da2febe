"""Adaptation without labels and without training: batch normalization with statistics of the target domain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kinglet.errors import KingletError


@dataclass
class Moments:
    """Sums over all values of each channel that a normalization saw, float64 of shape (channels,)."""

    count: int
    total: Tensor
    squares: Tensor

    @classmethod
    def of(cls, inputs: Tensor) -> Moments:
        """Return the sums over a batch, (n, channels, height, width)."""
        count = inputs.numel() // inputs.shape[1]
        variance, mean = (one.double() for one in torch.var_mean(inputs.float(), (0, 2, 3), correction=0))
        return cls(count, count * mean, count * (variance + mean * mean))

    def add(self, other: Moments) -> None:
        """Add another batch's sums."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each channel."""
        mean = self.total / self.count
        return mean, (self.squares / self.count - mean * mean).clamp(min=0)


def batch_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """Return the network's batch normalizations that keep statistics, from input to output."""
    return [
        module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
    ]


@torch.no_grad()
def adapt_batch_norms(network: nn.Module, batches: Iterable[Tensor], source_share: float) -> None:
    """Set the statistics of every batch normalization to a mixture of the source's, which it has, and the target's.

    batches: inputs of the target domain, float32 (n, channels, height, width) each; they pass once. source_share: of
    the mixture, in [0, 1): N / (N + n) in the paper. In the pass, every layer normalizes with the mixture for the
    batch at hand, so that a later layer's statistics are of what it will see; the target's statistics are those of all
    batches together.
    Raises KingletError if the network has no batch normalization, ValueError without batches.
    Source: Schneider et al. 2020, "Improving robustness against common corruptions by covariate shift adaptation",
    equation 1.
    """
    norms = batch_norms(network)
    if not norms:
        raise KingletError(
            "The network has no batch normalization whose statistics could be re-estimated.",
            "Take another model in adapt.models, or [] for none.",
        )
    source = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]  # type: ignore[union-attr]
    gathered: list[Moments | None] = [None] * len(norms)

    def mix(place: int, statistics: tuple[Tensor, Tensor]) -> None:
        for running, own, target in zip(
            (norms[place].running_mean, norms[place].running_var), source[place], statistics, strict=True
        ):
            running.copy_(torch.lerp(target, own.double(), source_share))  # type: ignore[union-attr]

    def hook_of(place: int) -> Any:
        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            moments = Moments.of(inputs[0])
            mix(place, moments.statistics())
            if gathered[place] is None:
                gathered[place] = moments
            else:
                gathered[place].add(moments)  # type: ignore[union-attr]

        return see

    network.eval()
    hooks = [norm.register_forward_pre_hook(hook_of(place)) for place, norm in enumerate(norms)]
    try:
        for inputs in batches:
            network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    for place, moments in enumerate(gathered):
        if moments is None:
            raise ValueError("statistics need at least one batch that reaches every normalization")
        mix(place, moments.statistics())
