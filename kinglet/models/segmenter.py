"""A network that says for every place of an image which class it shows, on a backbone of inverted residual blocks.

Five maps, at strides 32 to 2, are brought together from the coarsest to the finest: each is enlarged, added to the
next finer one of the backbone, and mixed by a depthwise 5x5 and a 1x1 convolution, which also brings it to the width
of the next. Fine maps are narrow, so that the decoder takes a seventh of the backbone's multiplications. Its answer
lies at stride 2: structures of a few pixels, such as cell membranes, would be lost at 8 or 16.

There is no pooling over the whole image, as LR-ASPP has: what a place answers then depends on its surroundings alone,
and a network trained on windows of images answers whole ones alike.

Source: Howard et al. 2019, "Searching for MobileNetV3", section 6.4, LR-ASPP (few narrow layers behind a mobile
backbone, a skip from a fine map); Lin et al. 2017, "Feature Pyramid Networks" (the way from coarse to fine);
Ronneberger et al. 2015, "U-Net" (skips from every resolution).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kinglet.models.inverted_residual import ConvBatchNorm, InvertedResidualNet
from kinglet.models.trunk import SeparableConv, SpecOnBackbone, Trunk, load_trunk, read_trunk

STRIDES = (2, 4, 8, 16, 32)
# Pixels of an image for one place of the answer, along either axis.
OUTPUT_STRIDE = STRIDES[0]


@dataclass(frozen=True)
class SegmenterSpec(SpecOnBackbone):
    """Everything needed to rebuild a segmenter.

    widths: channels of the decoder at each of `STRIDES`, the finest first. answer: channels of the map that the classes
    are read from where they are not the finest's, as after pruning; else 0. The rest is as in `SpecOnBackbone`.
    """

    widths: tuple[int, ...] = (32, 48, 64, 96, 128)
    answer: int = 0

    @property
    def answer_width(self) -> int:
        """The channels of the map that the classes are read from."""
        return self.answer or self.widths[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as JSON-ready values."""
        fields = {**super().to_dict(), "widths": list(self.widths)}
        if not self.answer:
            del fields["answer"]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> SegmenterSpec:
        """Rebuild a specification from `to_dict`'s values, or from what JSON made of them."""
        return super().from_dict({**fields, "widths": tuple(fields["widths"])})


class Decoder(nn.Module):
    """One map out of several, the coarsest enlarged step by step; each step is a factor of 2.

    channels: of the maps, the finest first. widths: that they are brought to. answer_width: of the map that comes out.
    """

    def __init__(
        self, channels: Sequence[int], widths: Sequence[int], answer_width: int, batch_norm: dict[str, Any]
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            ConvBatchNorm(of_map, width, 1, activation=False, **batch_norm)
            for of_map, width in zip(channels, widths, strict=True)
        )
        # Each to the width of the next finer map.
        finer = [answer_width, *widths[:-1]]
        self.mixing = nn.ModuleList(
            SeparableConv(width, next_width, 1, batch_norm) for width, next_width in zip(widths, finer, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return one map (n, answer_width, height, width) as fine as the finest of those given, which is the first."""
        x = self.mixing[-1](self.lateral[-1](maps[-1]))
        for index in range(len(maps) - 2, -1, -1):
            # Nearest, as integers are enlarged at no loss; the 5x5 convolution behind it smooths the steps.
            coarser = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = self.mixing[index](self.lateral[index](maps[index]) + coarser)
        return x


class Segmenter(nn.Module):
    """Backbone, decoder and a 1x1 convolution.

    Takes float32 images (n, in_channels, size, size), the size a multiple of 32. Returns logits
    (n, n_classes, size / 2, size / 2), of which a softmax over the classes makes probabilities.
    """

    def __init__(self, spec: SegmenterSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = Trunk(spec, STRIDES)
        self.decoder = Decoder(self.backbone.widths, spec.widths, spec.answer_width, spec.batch_norm)
        self.classes = nn.Conv2d(spec.answer_width, spec.n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images."""
        return self.classes(self.decoder(self.backbone(x)))

    def depth_groups(self) -> list[nn.Module]:
        """Return the parts from input to output, for learning rates that grow with depth."""
        return [self.backbone.stem, *self.backbone.blocks, self.decoder, self.classes]

    def answering_layers(self) -> list[nn.Module]:
        """Return the last layers, whose channels are the answer itself."""
        return [self.classes]


def read_spec(network: Segmenter) -> SegmenterSpec:
    """Return the specification that the layers of `network` have now, after channels were removed."""
    widths = tuple(lateral[0].out_channels for lateral in network.decoder.lateral)  # type: ignore[index]
    answer = network.classes.in_channels
    return replace(
        network.spec,
        **read_trunk(network.backbone, network.spec),
        widths=widths,
        answer=0 if answer == widths[0] else answer,
    )


def segmenter_on(classifier: InvertedResidualNet, n_classes: int, seed: int) -> Segmenter:
    """Return a segmenter with a classifier's weights in its backbone, the rest random, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Segmenter(SegmenterSpec.on(classifier.spec, n_classes))
    load_trunk(network.backbone, classifier)
    return network
