"""EfficientNet-Lite0, Lite1 and Lite2, and their ImageNet weights' names.

Source: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling"; the Lite family of
tensorflow/tpu: ReLU6 for swish, no squeeze-and-excitation, stem and head not scaled.
"""

from __future__ import annotations

import math

from torch import Tensor

from kinglet.models.inverted_residual import InvertedResidualSpec, block_table

# (expansion, kernel, stride, width, repeats) of EfficientNet-B0, before scaling.
STAGES = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
]
STEM = 32
HEAD = 1280


def round_width(width: float, divisor: int = 8) -> int:
    """Return `width` as the nearest multiple of `divisor`, never more than 10 % below it."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


def efficientnet_lite_spec(
    width: float, depth: float, in_channels: int, n_classes: int, dropout: float
) -> InvertedResidualSpec:
    """Return the architecture for the width and depth multipliers of the family."""
    last = len(STAGES) - 1
    stages = [
        # The first and the last stage keep their single block in the Lite family.
        (expansion, kernel, stride, channels, repeats if index in (0, last) else math.ceil(repeats * depth))
        for index, (expansion, kernel, stride, channels, repeats) in enumerate(STAGES)
    ]
    blocks = block_table(stages, STEM, lambda channels: round_width(channels * width))
    return InvertedResidualSpec(in_channels, STEM, blocks, HEAD, n_classes, dropout, batch_norm_eps=1e-3)


def rename_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of lukemelas' EfficientNet port under the names of `InvertedResidualNet`."""
    parts = {
        "_expand_conv": "expand.0",
        "_bn0": "expand.1",
        "_depthwise_conv": "depthwise.0",
        "_bn1": "depthwise.1",
        "_project_conv": "project.0",
        "_bn2": "project.1",
    }
    top = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "head.0", "_bn1": "head.1", "_fc": "classifier"}
    renamed = {}
    for name, value in state.items():
        if name.startswith("_blocks."):
            _, index, part, leaf = name.split(".")
            renamed[f"blocks.{index}.{parts[part]}.{leaf}"] = value
        else:
            part, leaf = name.split(".")
            renamed[f"{top[part]}.{leaf}"] = value
    return renamed
