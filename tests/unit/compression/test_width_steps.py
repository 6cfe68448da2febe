"""Steps of the width: the smallest one of which each pays beyond doubt."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kinglet.compression.latency import Latency
from kinglet.compression.width_steps import PROBE_WIDTHS, STEPS, probe, width_step
from kinglet.models.export import to_onnx
from tests.unit.models.small_networks import NETWORKS


def latencies(times: dict[int, float], width: float = 0.01) -> dict[int, Latency]:
    return {channels: Latency(time, time - width, time + width, "fp32") for channels, time in times.items()}


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        # Kernels for 4, 8 and 16 channels at once: what is left of a step costs as much as a whole one.
        ({32: 8, 28: 7, 24: 6, 20: 5, 16: 4}, 4),
        ({32: 4, 28: 4, 24: 3, 20: 3, 16: 2}, 8),
        ({32: 2, 28: 2, 24: 2, 20: 2, 16: 1}, 16),
        # One step of four that does not pay spoils the four.
        ({32: 8, 28: 7, 24: 6, 20: 6, 16: 4}, 8),
        # Faster, but not beyond doubt.
        ({32: 4.00, 28: 3.99, 24: 3, 20: 2.99, 16: 2}, 8),
        # A wider network that is slower than a narrower one does not make its step pay.
        ({32: 2, 28: 5, 24: 3, 20: 5, 16: 1}, 16),
        ({32: 1, 28: 1, 24: 1, 20: 1, 16: 1}, 16),
    ],
)
def test_smallest_step_that_pays_is_found(times: dict[int, float], expected: int) -> None:
    assert set(times) == set(PROBE_WIDTHS)
    assert width_step(latencies(times)) == expected
    assert expected in STEPS


@pytest.mark.parametrize("family", list(NETWORKS))
def test_probe_is_of_the_same_family_for_the_same_images_and_as_wide_as_asked(family: str) -> None:
    network = NETWORKS[family](1, 3)
    for width in PROBE_WIDTHS:
        made = probe(network, width, seed=0)
        assert type(made) is type(network)
        assert {module.out_channels for module in made.modules() if isinstance(module, nn.Conv2d)} == {width}
        assert made(torch.zeros(2, 1, 16, 16)).shape == (2, 3)
    same, other = (to_onnx(probe(network, 16, seed), 16, 1, {}).SerializeToString() for seed in (0, 1))
    assert to_onnx(probe(network, 16, 0), 16, 1, {}).SerializeToString() == same
    assert same != other


def test_probe_of_a_network_without_widths_is_refused() -> None:
    with pytest.raises(TypeError, match="Linear has no widths"):
        probe(nn.Linear(2, 2), 16, 0)
