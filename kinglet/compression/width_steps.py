"""How many channels a runtime takes at once: steps of the width within which fewer channels save no time.

A kernel works on as many channels as fit into its registers; what is left of a step is computed all the same.
How wide a step is depends on the processor, the runtime and the precision, so it is measured, with random weights:
on one x86 processor with AVX-512, 20 channels of dense 3x3 convolutions took as long as 32 in fp32, while in int8
every 4 counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import nn

from kinglet.compression.latency import Latency, is_faster
from kinglet.models.detector import Detector
from kinglet.models.inverted_residual import BlockSpec, InvertedResidualNet, InvertedResidualSpec
from kinglet.models.residual_cnn import ResidualCnn, ResidualCnnSpec, ResidualStage

STEPS = (4, 8, 16)
WIDEST = 32
# All that is needed to tell the steps apart, the widest first.
PROBE_WIDTHS = tuple(range(WIDEST, WIDEST - max(STEPS) - 1, -min(STEPS)))
PROBE_BLOCKS = 4


def probe(network: nn.Module, width: int, seed: int) -> nn.Module:
    """Return a small network of the same kind of layers and for the same images, all of them `width` channels wide.

    Of a detector, it is made of the blocks of its backbone, whose layers pyramid and head have as well. Its weights are
    random, the same for the same seed. Raises TypeError for a family without a table of widths.
    """
    torch.manual_seed(seed)
    if isinstance(network, ResidualCnn):
        stages = (ResidualStage(width, 2, (width,) * (PROBE_BLOCKS // 2)),) * 2
        return ResidualCnn(ResidualCnnSpec(network.spec.in_channels, stages, network.spec.n_classes)).eval()
    if isinstance(network, InvertedResidualNet | Detector):
        blocks = (BlockSpec(width, width, 3, 1, True, True),) * PROBE_BLOCKS
        spec = InvertedResidualSpec(network.spec.in_channels, width, blocks, width, network.spec.n_classes)
        return InvertedResidualNet(spec).eval()
    raise TypeError(f"{type(network).__name__} has no widths that could be changed")


def width_step(latencies: Mapping[int, Latency]) -> int:
    """Return the smallest of `STEPS` that pays: from the widest probe down, each step is faster beyond doubt.

    latencies: {width: latency of the probe}, for all `PROBE_WIDTHS`. Where no step pays, the largest one.
    """
    for step in STEPS:
        chain = range(WIDEST, WIDEST - max(STEPS) - 1, -step)
        if all(is_faster(latencies[narrow], latencies[wide]) for wide, narrow in pairwise(chain)):
            return step
    return max(STEPS)
