"""A classifier's blocks without its end: the maps that networks with an answer for every place are built on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from kinglet.models.inverted_residual import (
    BlockSpec,
    ConvBatchNorm,
    InvertedResidualBlock,
    InvertedResidualNet,
    InvertedResidualSpec,
    SpecOfBlocks,
    read_blocks,
)


@dataclass(frozen=True)
class SpecOnBackbone(SpecOfBlocks):
    """What the specifications of such networks begin with.

    stem, blocks, batch_norm_eps, batch_norm_momentum: of the backbone; the normalizations behind it are alike.
    """

    in_channels: int
    stem: int
    blocks: tuple[BlockSpec, ...]
    n_classes: int
    batch_norm_eps: float = 1e-3
    batch_norm_momentum: float = 0.1

    @classmethod
    def on(cls, backbone: InvertedResidualSpec, n_classes: int) -> Self:
        """Return the specification of a network on a backbone."""
        return cls(
            backbone.in_channels,
            backbone.stem,
            backbone.blocks,
            n_classes,
            batch_norm_eps=backbone.batch_norm_eps,
            batch_norm_momentum=backbone.batch_norm_momentum,
        )

    @property
    def batch_norm(self) -> dict[str, Any]:
        """What `ConvBatchNorm` is told of its normalization."""
        return {"eps": self.batch_norm_eps, "momentum": self.batch_norm_momentum}


class Trunk(nn.Module):
    """The blocks of a classifier, without its end. strides: ascending, of the maps that are returned."""

    def __init__(self, spec: SpecOnBackbone, strides: Sequence[int]) -> None:
        super().__init__()
        self.stem = ConvBatchNorm(spec.in_channels, spec.stem, 3, 2, **spec.batch_norm)
        self.last_of_stride, self.widths = last_blocks(spec, strides)
        widths = [spec.stem, *(block.out for block in spec.blocks)]
        # What lies behind the last map is not computed.
        self.blocks = nn.ModuleList(
            InvertedResidualBlock(width, block, **spec.batch_norm)
            for width, block in zip(widths, spec.blocks[: self.last_of_stride[-1] + 1], strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of images (n, in_channels, size, size), the finest first."""
        x = self.stem(x)
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.last_of_stride:
                maps.append(x)
        return maps


def last_blocks(spec: SpecOnBackbone, strides: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the indices of the last block at each of the strides, and the channels there.

    Raises ValueError for a backbone without a block at one of them.
    """
    last: dict[int, int] = {}
    stride = 2
    for index, block in enumerate(spec.blocks):
        stride *= block.stride
        last[stride] = index
    if missing := [str(stride) for stride in strides if stride not in last]:
        raise ValueError(f"the backbone has no block at stride {', '.join(missing)}")
    indices = tuple(last[stride] for stride in strides)
    return indices, tuple(spec.blocks[index].out for index in indices)


def load_trunk(trunk: Trunk, classifier: InvertedResidualNet) -> None:
    """Take a classifier's weights as far as the trunk goes."""
    given = classifier.state_dict()
    trunk.load_state_dict({name: given[name] for name in trunk.state_dict()})


def read_trunk(trunk: Trunk, spec: SpecOnBackbone) -> dict[str, Any]:
    """Return the fields of `spec` on the backbone as the layers of `trunk` have them, after channels were removed."""
    n_blocks = len(trunk.blocks)
    return {
        "stem": trunk.stem[0].out_channels,
        # Behind the last of them are those that no map needs.
        "blocks": (*read_blocks(trunk.blocks, spec.blocks[:n_blocks]), *spec.blocks[n_blocks:]),
    }


class SeparableConv(nn.Sequential):
    """Depthwise 5x5 convolution and 1x1 convolution, each with batch normalization and ReLU6."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, batch_norm: dict[str, Any]) -> None:
        super().__init__(
            ConvBatchNorm(in_channels, in_channels, 5, stride, in_channels, **batch_norm),
            ConvBatchNorm(in_channels, out_channels, 1, **batch_norm),
        )

    def share_convolutions(self, other: SeparableConv) -> None:
        """Take another one's convolutions in place of the own; the normalizations stay."""
        for own, shared in zip(self.children(), other.children(), strict=True):
            own[0] = shared[0]  # type: ignore[index,operator]  # both are sequences
