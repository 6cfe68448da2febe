"""Plain residual networks with dense 3x3 convolutions: students for tight latency budgets.

Below half a millisecond a runtime spends its time per node, not per multiplication, so a few dense
convolutions at a low resolution beat many depthwise ones.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition" (basic blocks), without the
strided 1x1 shortcut: a block that changes shape has no skip, which saves two nodes each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class ResidualStage:
    """A strided convolution to `width` channels, then residual blocks of two 3x3 convolutions.

    `inner` lists the channels between the two convolutions of each block.
    """

    width: int
    stride: int
    inner: tuple[int, ...]


@dataclass(frozen=True)
class ResidualCnnSpec:
    """Everything needed to rebuild a plain residual network."""

    in_channels: int
    stages: tuple[ResidualStage, ...]
    n_classes: int
    dropout: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as JSON-ready values."""
        fields = dict(vars(self))
        fields["stages"] = [{**vars(stage), "inner": list(stage.inner)} for stage in self.stages]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ResidualCnnSpec:
        """Rebuild a specification from `to_dict`'s values."""
        stages = tuple(ResidualStage(s["width"], s["stride"], tuple(s["inner"])) for s in fields["stages"])
        return cls(**{**fields, "stages": stages})


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalization around an identity skip."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features after the block."""
        y = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        return functional.relu(x + self.norm2(self.conv2(y)))


class ResidualStageNet(nn.Module):
    """A 3x3 convolution that changes resolution and width, then residual blocks."""

    def __init__(self, in_channels: int, stage: ResidualStage) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, stage.width, 3, stage.stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(stage.width)
        self.blocks = nn.ModuleList(ResidualBlock(stage.width, inner) for inner in stage.inner)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features after the stage."""
        x = functional.relu(self.norm(self.conv(x)), inplace=True)
        for block in self.blocks:
            x = block(x)
        return x


class ResidualCnn(nn.Module):
    """Stages of residual blocks, global average pooling, linear classifier.

    Takes float32 images of shape (n, in_channels, height, width), returns logits (n, n_classes).
    """

    def __init__(self, spec: ResidualCnnSpec) -> None:
        super().__init__()
        self.spec = spec
        stages = []
        channels = spec.in_channels
        for stage in spec.stages:
            stages.append(ResidualStageNet(channels, stage))
            channels = stage.width
        self.stages = nn.ModuleList(stages)
        # Even one that drops nothing draws a random number for every feature.
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout else nn.Identity()
        self.classifier = nn.Linear(channels, spec.n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Return pooled features of shape (n, width) for images of shape (n, in_channels, height, width)."""
        for stage in self.stages:
            x = stage(x)
        return functional.adaptive_avg_pool2d(x, 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, n_classes)."""
        return self.classifier(self.dropout(self.features(x)))

    def depth_groups(self) -> list[nn.Module]:
        """Return the parts from input to classifier, for learning rates that grow with depth."""
        return [*self.stages, self.classifier]


def random_residual_cnn(spec: ResidualCnnSpec, seed: int) -> ResidualCnn:
    """Return a network with random weights, the same for the same seed."""
    torch.manual_seed(seed)
    return ResidualCnn(spec)


def read_spec(network: ResidualCnn) -> ResidualCnnSpec:
    """Return the specification that the layers of `network` have now, after channels were removed."""
    stages = tuple(
        ResidualStage(
            width=stage.conv.out_channels,  # type: ignore[union-attr,arg-type]
            stride=spec.stride,
            inner=tuple(block.conv1.out_channels for block in stage.blocks),  # type: ignore[union-attr]
        )
        for stage, spec in zip(network.stages, network.spec.stages, strict=True)
    )
    return replace(network.spec, stages=stages, n_classes=network.classifier.out_features)
