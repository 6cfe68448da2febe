"""MobileNetV2 at width 1.0, and its ImageNet weights' names.

Source: Sandler et al. 2018, table 2.
"""

from __future__ import annotations

from torch import Tensor

from kinglet.models.inverted_residual import InvertedResidualSpec, block_table

# (expansion, kernel, stride, width, repeats)
STAGES = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 3, 2, 32, 3),
    (6, 3, 2, 64, 4),
    (6, 3, 1, 96, 3),
    (6, 3, 2, 160, 3),
    (6, 3, 1, 320, 1),
]
STEM = 32
HEAD = 1280


def mobilenet_v2_spec(in_channels: int, n_classes: int, dropout: float) -> InvertedResidualSpec:
    """Return the architecture of MobileNetV2 1.0."""
    return InvertedResidualSpec(
        in_channels, STEM, block_table(STAGES, STEM), HEAD, n_classes, dropout, batch_norm_eps=1e-5
    )


def rename_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with torchvision's first MobileNetV2 names under ours; it has no classifier."""
    with_expansion = {
        "0": "expand.0",
        "1": "expand.1",
        "3": "depthwise.0",
        "4": "depthwise.1",
        "6": "project.0",
        "7": "project.1",
    }
    without_expansion = {"0": "depthwise.0", "1": "depthwise.1", "3": "project.0", "4": "project.1"}
    renamed = {}
    for name, value in state.items():
        parts = name.split(".")
        index = int(parts[1])
        if index in (0, 18):
            renamed[f"{'stem' if index == 0 else 'head'}.{parts[2]}.{parts[3]}"] = value
        else:
            layers = without_expansion if index == 1 else with_expansion
            renamed[f"blocks.{index - 1}.{layers[parts[3]]}.{parts[4]}"] = value
    return renamed
