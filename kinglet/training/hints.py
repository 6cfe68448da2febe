"""Learning from what the teacher sees on its way, not from its answers alone: feature hints, attention transfer.

A hint is the teacher's own map in the middle of it, which a student's map foretells through a 1x1 convolution that
nobody needs afterwards. Attention is where a map is large, whatever its channels are: one value a place, at every
resolution. Where sizes differ, the larger map is pooled to the smaller one.
Source: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets" (hints, here beside the answers from the first step
on and not as a stage before them); Zagoruyko and Komodakis 2017, "Paying More Attention to Attention" (attention).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from kinglet.data.views import Shown
from kinglet.models.feature_maps import feature_maps
from kinglet.training.losses import Loss

FEATURES, ATTENTION = "features", "attention"


def attention(maps: Tensor) -> Tensor:
    """Return the mean square over the channels of maps (n, channels, height, width): (n, 1, height, width).

    Source: Zagoruyko and Komodakis 2017, section 3.1, the sum of squared activations.
    """
    return maps.square().mean(1, keepdim=True)


def kept_maps(kind: str, maps: Sequence[Tensor]) -> list[Tensor]:
    """Return what of a teacher's maps, the finest first, its students need: (n, channels, edge, edge) each.

    For "features" the one in the middle; for "attention" the attention of each, of length 1, so that it fits
    into half precision. The finest is left out where there are others: it says little that the image does not, and
    is as large as all others together. A single place pays attention to nothing.
    """
    coarser = list(maps[1:]) or list(maps)
    if kind == FEATURES:
        return [coarser[(len(coarser) - 1) // 2]]
    several = [one for one in coarser if one.shape[2] > 1] or coarser
    return [functional.normalize(attention(one).flatten(1), dim=1).view(len(one), 1, *one.shape[2:]) for one in several]


def pairs_of_maps(kind: str, student_edges: Sequence[int], teacher_edges: Sequence[int]) -> list[tuple[int, int]]:
    """Return which of a student's maps learns from which of its teacher's: (student's place, teacher's place).

    Those nearest in size belong together, for of equal pictures such maps have seen about as much; of two as near
    the coarser. "features": one pair for each of the teacher's; "attention": one for each of the student's that has
    more than one place, and none of the teacher's of a single place.
    """

    def nearest(edge: int, others: Sequence[int]) -> int:
        return min(range(len(others)), key=lambda place: (abs(math.log(others[place] / edge)), -place))

    if kind == FEATURES:
        return [(nearest(edge, student_edges), place) for place, edge in enumerate(teacher_edges)]
    return [(place, nearest(edge, teacher_edges)) for place, edge in enumerate(student_edges) if edge > 1]


class Guided(nn.Module):
    """A student in training, which also shows the maps that learn from its teacher's.

    In training mode returns (logits, map, ...), a map for each entry of `places`, through its regressor; in
    evaluation mode what the student returns.
    """

    def __init__(self, student: nn.Module, places: Sequence[int], regressors: Sequence[nn.Module]) -> None:
        super().__init__()
        self.student = student
        self.places = tuple(places)
        self.regressors = nn.ModuleList(regressors)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return logits, or in training logits and maps, for images (n, channels, height, width)."""
        if not self.training:
            logits: Tensor = self.student(x)
            return logits
        maps, logits = feature_maps(self.student, x)
        shown = [regress(maps[place]) for place, regress in zip(self.places, self.regressors, strict=True)]
        return (logits, *shown)

    def depth_groups(self) -> list[nn.Module]:
        """Return the parts from input to classifier, and the regressors."""
        return [*self.student.depth_groups(), self.regressors]  # type: ignore[operator]


def guide(
    student: nn.Module,
    kind: str,
    input_shape: tuple[int, int, int],
    teacher_shapes: Sequence[tuple[int, int]],
    seed: int,
) -> tuple[Guided, list[int]]:
    """Return a student that shows its maps, and which of the teacher's each of them learns from.

    input_shape: (channels, height, width) of the student's images. teacher_shapes: (channels, edge) of what
    `kept_maps` kept. The regressors are random, the same for the same seed; the student's weights stay as they are.
    Raises TypeError for a student of an unknown family.
    """
    training = student.training
    with torch.no_grad():
        maps, _ = feature_maps(student.eval(), torch.zeros(1, *input_shape))
    student.train(training)
    pairs = pairs_of_maps(kind, [one.shape[2] for one in maps], [edge for _, edge in teacher_shapes])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        regressors = [
            nn.Conv2d(maps[place].shape[1], teacher_shapes[of][0], 1) if kind == FEATURES else nn.Identity()
            for place, of in pairs
        ]
    return Guided(student, [place for place, _ in pairs], regressors), [of for _, of in pairs]


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of maps, as a share of the teacher's mean square: 1 for maps of zeros.

    student, teacher: float (n, channels, edge, edge), channels alike. Relative, so that a weight means the same for
    every teacher.
    """
    student, teacher = alike(student, teacher)
    return (student - teacher).square().mean() / teacher.square().mean().clamp_min(1e-12)


def attention_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over the images of half the squared distance of attention maps of length 1, [0, 1].

    student: float (n, channels, edge, edge). teacher: its attention, (n, 1, edge, edge).
    Source: Zagoruyko and Komodakis 2017, equation 2, the norm squared as in the authors' code.
    """
    student, teacher = alike(attention(student), teacher)
    own, other = (functional.normalize(maps.flatten(1), dim=1) for maps in (student, teacher))
    return (own - other).square().sum(1).mean() / 2


def alike(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return maps of both at the coarser of their resolutions."""
    edge = min(student.shape[2], teacher.shape[2])
    pooled = [
        maps if maps.shape[2] == edge else functional.adaptive_avg_pool2d(maps, edge) for maps in (student, teacher)
    ]
    return pooled[0], pooled[1]


# A new kind of hint is a distance and a line here; `distill.hints` in params.yaml takes its names from the keys.
HINTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {FEATURES: feature_distance, ATTENTION: attention_distance}


def hinted_loss(answers: Loss, kind: str, teacher_maps: Sequence[NDArray[np.floating]], weight: float) -> Loss:
    """Return a loss of what `Guided` returns: that of its logits, and `weight` times the mean distance of its maps.

    answers: a loss of the logits. teacher_maps: for each of the student's maps those of its teacher, (n_training,
    n_views, channels, edge, edge), in memory or mapped from a file.
    """
    distance = HINTS[kind]

    def loss(outputs: tuple[Tensor, ...], shown: Shown) -> Tensor:
        logits, *maps = outputs
        positions, views = shown.positions.numpy(), shown.views.numpy()
        distances = [
            distance(one, torch.from_numpy(teacher[positions, views]).to(one))
            for one, teacher in zip(maps, teacher_maps, strict=True)
        ]
        return answers(logits, shown) + weight * torch.stack(distances).mean()

    return loss
