"""A single-stage detector without anchor boxes, on a backbone of inverted residual blocks.

Every place of three maps, at strides 8, 16 and 32, answers with class scores and with the distances from its centre
to the four sides of one box. The maps pass a light pyramid, down and up again, and a head of two convolutions that
the three levels share, each with a normalization of its own, as objects look alike at all of them and their
statistics do not.

Source: Tian et al. 2019, "FCOS: Fully Convolutional One-Stage Object Detection" (places and distances); Liu et al.
2018, "Path Aggregation Network for Instance Segmentation" (the pyramid's way up again); Yu et al. 2021, "PP-PicoDet"
(depthwise 5x5 convolutions in pyramid and head); Lyu et al. 2022, "RTMDet" (shared convolutions, own normalizations).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from kinglet.models.inverted_residual import ConvBatchNorm, InvertedResidualNet
from kinglet.models.trunk import SeparableConv, SpecOnBackbone, Trunk, load_trunk, read_trunk

STRIDES = (8, 16, 32)
# What a place says before it has learnt anything: hardly ever an object, and a box four strides wide.
INITIAL_PROBABILITY, INITIAL_DISTANCE = 0.01, 2.0
# Of the logarithm of a distance in strides: an untrained network must not answer with infinity.
LARGEST_LOGARITHM = 5.0


@dataclass(frozen=True)
class DetectorSpec(SpecOnBackbone):
    """Everything needed to rebuild a detector.

    width: channels of the pyramid and the head. depth: convolutions of the head. tower: channels behind each of these
    convolutions where they are not all `width`, as after pruning; else empty. The rest is as in `SpecOnBackbone`.
    """

    width: int = 96
    depth: int = 2
    tower: tuple[int, ...] = ()

    @property
    def head_widths(self) -> tuple[int, ...]:
        """The channels of the maps between the head's convolutions: those that it takes first, then behind each."""
        return (self.width, *(self.tower or (self.width,) * self.depth))

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as JSON-ready values."""
        fields = super().to_dict()
        del fields["tower"]
        return {**fields, "tower": list(self.tower)} if self.tower else fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Rebuild a specification from `to_dict`'s values."""
        return super().from_dict({**fields, "tower": tuple(fields.get("tower", ()))})


class Pyramid(nn.Module):
    """Maps of one width, each of which has seen all the others: coarse to fine, then fine to coarse."""

    def __init__(self, widths: Sequence[int], width: int, batch_norm: dict[str, Any]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            ConvBatchNorm(channels, width, 1, activation=False, **batch_norm) for channels in widths
        )
        self.down = nn.ModuleList(SeparableConv(width, width, 1, batch_norm) for _ in widths[1:])
        self.up = nn.ModuleList(SeparableConv(width, width, 2, batch_norm) for _ in widths[1:])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return maps (n, width, height, width) as fine as those given, the finest first."""
        levels = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for index in range(len(levels) - 2, -1, -1):
            coarser = functional.interpolate(levels[index + 1], scale_factor=2.0, mode="nearest")
            levels[index] = self.down[index](levels[index] + coarser)
        for index, step in enumerate(self.up):
            levels[index + 1] = levels[index + 1] + step(levels[index])
        return levels


class Head(nn.Module):
    """Class logits and logarithms of distances from the maps of the pyramid.

    widths: channels of those maps, and behind each of the head's convolutions.
    """

    def __init__(self, widths: Sequence[int], n_classes: int, batch_norm: dict[str, Any]) -> None:
        super().__init__()
        width = widths[-1]
        towers = [[SeparableConv(*channels, 1, batch_norm) for channels in pairwise(widths)] for _ in STRIDES]
        for tower in towers[1:]:
            for own, first in zip(tower, towers[0], strict=True):
                own.share_convolutions(first)
        self.towers = nn.ModuleList(nn.Sequential(*tower) for tower in towers)
        no_object = -math.log(1 / INITIAL_PROBABILITY - 1)
        self.classes = nn.ModuleList(answering(width, n_classes, no_object) for _ in STRIDES)
        self.distances = nn.ModuleList(answering(width, 4, math.log(INITIAL_DISTANCE)) for _ in STRIDES)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (n, A, n_classes) and logarithms of distances (n, A, 4) of the A places of all levels."""
        logits, distances = [], []
        for x, tower, classes, sides in zip(levels, self.towers, self.classes, self.distances, strict=True):
            y = tower(x)
            logits.append(places_last(classes(y)))
            distances.append(places_last(sides(y)))
        return torch.cat(logits, 1), torch.cat(distances, 1)


def answering(width: int, channels: int, initial: float) -> nn.Conv2d:
    """Return a 1x1 convolution that answers about `initial` before it has learnt anything."""
    convolution = nn.Conv2d(width, channels, 1)
    nn.init.normal_(convolution.weight, std=0.01)
    assert convolution.bias is not None
    nn.init.constant_(convolution.bias, initial)
    return convolution


def places_last(x: Tensor) -> Tensor:
    """Return maps (n, channels, height, width) as (n, height * width, channels), rows first."""
    channels, height, width = (int(edge) for edge in x.shape[1:])
    return x.permute(0, 2, 3, 1).reshape(-1, height * width, channels)


def places(input_size: int) -> tuple[Tensor, Tensor]:
    """Return the centres of all places, float32 (A, 2), x and y in input pixels, and their strides, (A, 1).

    The levels follow each other from the finest, each rows first.
    """
    centres, strides = [], []
    for stride in STRIDES:
        steps = (torch.arange(input_size // stride, dtype=torch.float32) + 0.5) * stride
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        centres.append(torch.stack([x, y], -1).reshape(-1, 2))
        strides.append(torch.full((len(steps) ** 2, 1), float(stride)))
    return torch.cat(centres), torch.cat(strides)


class Detector(nn.Module):
    """Backbone, pyramid and head.

    Takes float32 images (n, in_channels, size, size), the size a multiple of 32. Returns class logits
    (n, A, n_classes), whose sigmoid says how likely and how well placed an object of the class is, and boxes
    (n, A, 4): left, top, right, bottom in input pixels. A counts the places of all levels, in the order of `places`.
    """

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = Trunk(spec, STRIDES)
        self.pyramid = Pyramid(self.backbone.widths, spec.width, spec.batch_norm)
        self.head = Head(spec.head_widths, spec.n_classes, spec.batch_norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits and boxes of images."""
        logits, logarithms = self.head(self.pyramid(self.backbone(x)))
        centres, strides = (tensor.to(x.device) for tensor in places(int(x.shape[-1])))
        distances = logarithms.clamp(-LARGEST_LOGARITHM, LARGEST_LOGARITHM).exp()
        # To the left and up, to the right and down, in one product and one sum.
        directions = strides * torch.tensor([-1.0, -1.0, 1.0, 1.0], device=x.device)
        return logits, torch.cat([centres, centres], 1) + distances * directions

    def depth_groups(self) -> list[nn.Module]:
        """Return the parts from input to output, for learning rates that grow with depth."""
        return [self.backbone.stem, *self.backbone.blocks, self.pyramid, self.head]

    def answering_layers(self) -> list[nn.Module]:
        """Return the last layers, whose channels are the answer itself."""
        return [*self.head.classes, *self.head.distances]


def read_spec(network: Detector) -> DetectorSpec:
    """Return the specification that the layers of `network` have now, after channels were removed."""
    width = network.pyramid.lateral[0][0].out_channels  # type: ignore[index]
    tower = tuple(step[1][0].out_channels for step in network.head.towers[0].children())  # type: ignore[index]
    return replace(
        network.spec,
        **read_trunk(network.backbone, network.spec),
        width=width,
        tower=() if set(tower) <= {width} else tower,
    )


def detector_on(classifier: InvertedResidualNet, n_classes: int, seed: int) -> Detector:
    """Return a detector with a classifier's weights in its backbone, the rest random, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Detector(DetectorSpec.on(classifier.spec, n_classes))
    load_trunk(network.backbone, classifier)
    return network
