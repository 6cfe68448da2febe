"""What adaptation by batch statistics leaves of a network, and what it changes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SOURCE_SHARE = 0.25  # of the statistics that the network came with, as the projects of the tests set it


def assert_statistics_alone_are_mixed(before: nn.Module, after: nn.Module, inputs: Tensor) -> None:
    """Assert that the first normalization has the mixture with those of all inputs, and that nothing was trained.

    inputs: all that was adapted to, float32 (n, channels, height, width), as the network takes them.
    """
    seen: list[Tensor] = []
    first, mixed = (
        next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
        for network in (before, after)
    )
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        before(inputs)
    expected = (1 - SOURCE_SHARE) * seen[0].mean((0, 2, 3)) + SOURCE_SHARE * first.running_mean
    torch.testing.assert_close(mixed.running_mean, expected, atol=1e-4, rtol=1e-3)
    for (name, one), (_, other) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        assert torch.equal(one, other), name
