"""Networks of inverted residual blocks: EfficientNet-Lite and MobileNetV2, dense or pruned.

The architecture is data: a table of widths, kernels and strides. A pruned network is the same class
with a smaller table, so that it reloads without a pickled class.

Source: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks";
Tan and Le 2019, "EfficientNet"; EfficientNet-Lite leaves out squeeze-and-excitation and swish.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Tensor, nn
from torch.nn import functional

from kinglet.models.depthwise import DepthwiseConv2d
from kinglet.models.pointwise import PointwiseConv2d


@dataclass(frozen=True)
class BlockSpec:
    """One inverted residual block: 1x1 expansion, depthwise convolution, linear 1x1 projection.

    `expanded` is the number of channels of the depthwise convolution; where it equals the input
    channels and `has_expansion` is false, the block starts with the depthwise convolution.
    """

    expanded: int
    out: int
    kernel: int
    stride: int
    has_expansion: bool
    has_skip: bool


class SpecOfBlocks:
    """A specification with inverted residual blocks in it, to and from JSON-ready values."""

    blocks: tuple[BlockSpec, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as JSON-ready values."""
        fields = dict(vars(self))
        fields["blocks"] = [dict(vars(block)) for block in self.blocks]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Rebuild a specification from `to_dict`'s values."""
        blocks = tuple(BlockSpec(**block) for block in fields["blocks"])
        return cls(**{**fields, "blocks": blocks})


@dataclass(frozen=True)
class InvertedResidualSpec(SpecOfBlocks):
    """Everything needed to rebuild a network of inverted residual blocks."""

    in_channels: int
    stem: int
    blocks: tuple[BlockSpec, ...]
    head: int
    n_classes: int
    dropout: float = 0.0
    batch_norm_eps: float = 1e-3
    batch_norm_momentum: float = 0.1


class ConvBatchNorm(nn.Sequential):
    """Convolution without bias, batch normalization, and ReLU6 unless `activation` is false."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        *,
        activation: bool = True,
        eps: float,
        momentum: float,
    ) -> None:
        convolution: nn.Conv2d
        if groups == in_channels == out_channels:
            convolution = DepthwiseConv2d(out_channels, kernel, stride)
        elif (kernel, stride, groups) == (1, 1, 1):
            convolution = PointwiseConv2d(in_channels, out_channels)
        else:
            convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        layers: list[nn.Module] = [
            convolution,
            nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum),
        ]
        if activation:
            layers.append(nn.ReLU6(inplace=True))
        super().__init__(*layers)


class InvertedResidualBlock(nn.Module):
    """1x1 expansion, depthwise convolution, linear projection, identity skip where shapes allow."""

    def __init__(self, in_channels: int, spec: BlockSpec, *, eps: float, momentum: float) -> None:
        super().__init__()
        self.has_skip = spec.has_skip
        batch_norm: dict[str, Any] = {"eps": eps, "momentum": momentum}
        self.expand = ConvBatchNorm(in_channels, spec.expanded, 1, **batch_norm) if spec.has_expansion else None
        self.depthwise = ConvBatchNorm(
            spec.expanded, spec.expanded, spec.kernel, spec.stride, spec.expanded, **batch_norm
        )
        self.project = ConvBatchNorm(spec.expanded, spec.out, 1, activation=False, **batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features after the block."""
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.has_skip else y


class InvertedResidualNet(nn.Module):
    """Stem, inverted residual blocks, 1x1 head, global average pooling, linear classifier.

    Takes float32 images of shape (n, in_channels, height, width), returns logits (n, n_classes).
    """

    def __init__(self, spec: InvertedResidualSpec) -> None:
        super().__init__()
        batch_norm: dict[str, Any] = {"eps": spec.batch_norm_eps, "momentum": spec.batch_norm_momentum}
        self.spec = spec
        self.stem = ConvBatchNorm(spec.in_channels, spec.stem, 3, 2, **batch_norm)
        channels = spec.stem
        blocks = []
        for block in spec.blocks:
            blocks.append(InvertedResidualBlock(channels, block, **batch_norm))
            channels = block.out
        self.blocks = nn.ModuleList(blocks)
        self.head = ConvBatchNorm(channels, spec.head, 1, **batch_norm)
        # Even one that drops nothing draws a random number for every feature.
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout else nn.Identity()
        self.classifier = nn.Linear(spec.head, spec.n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Return pooled features of shape (n, head) for images of shape (n, in_channels, height, width)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return functional.adaptive_avg_pool2d(self.head(x), 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, n_classes)."""
        return self.classifier(self.dropout(self.features(x)))

    def depth_groups(self) -> list[nn.Module]:
        """Return the parts from input to classifier, for learning rates that grow with depth."""
        return [self.stem, *self.blocks, self.head, self.classifier]


def read_spec(network: InvertedResidualNet) -> InvertedResidualSpec:
    """Return the specification that the layers of `network` have now, after channels were removed."""
    return replace(
        network.spec,
        stem=network.stem[0].out_channels,  # type: ignore[arg-type]
        blocks=read_blocks(network.blocks, network.spec.blocks),
        head=network.head[0].out_channels,  # type: ignore[arg-type]
        n_classes=network.classifier.out_features,
    )


def read_blocks(blocks: Iterable[nn.Module], specs: Iterable[BlockSpec]) -> tuple[BlockSpec, ...]:
    """Return the specifications that these blocks have now; specs: those that they were made by."""
    return tuple(
        replace(spec, expanded=block.depthwise[0].out_channels, out=block.project[0].out_channels)  # type: ignore[index,union-attr]
        for block, spec in zip(blocks, specs, strict=True)
    )


def block_table(
    stages: list[tuple[int, int, int, int, int]], stem: int, round_width: Any = int
) -> tuple[BlockSpec, ...]:
    """Return the blocks of stages given as (expansion, kernel, stride, width, repeats)."""
    blocks = []
    channels = stem
    for expansion, kernel, stride, width, repeats in stages:
        out = round_width(width)
        for index in range(repeats):
            block_stride = stride if index == 0 else 1
            blocks.append(
                BlockSpec(
                    expanded=channels * expansion,
                    out=out,
                    kernel=kernel,
                    stride=block_stride,
                    has_expansion=expansion != 1,
                    has_skip=block_stride == 1 and channels == out,
                )
            )
            channels = out
    return tuple(blocks)
