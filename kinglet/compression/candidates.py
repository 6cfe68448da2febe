"""Candidates of a search: what a small model may look like, and how its network is made.

A family is a kind of candidate: it proposes one from an Optuna trial and builds its network. A new family is
a class here and a line in `FAMILIES`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import optuna
from torch import Tensor, nn

from kinglet.compression.depth import removable_blocks, remove_blocks
from kinglet.compression.pruning import prune_channels, reestimate_batch_norms
from kinglet.data.resolutions import backbone_sizes, residual_sizes
from kinglet.models.inverted_residual import InvertedResidualNet
from kinglet.models.residual_cnn import ResidualCnnSpec, ResidualStage, random_residual_cnn

Batches = Callable[[int], list[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Candidate:
    """A proposal: its family, the edge of its input in pixels, and what else was chosen for it."""

    family: str
    input_size: int
    choices: dict[str, Any] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """The candidate in a few words."""
        return FAMILIES[self.family].describe(self)


@dataclass(frozen=True)
class Task:
    """What candidates are made for.

    teacher: the network that they learn from, in evaluation mode. teacher_size, student_size: edges in pixels
    of its input and of the images' own size. batches: function from an input size to training images as a
    network takes them, with their labels; they decide which channels and blocks of the teacher go.
    """

    teacher: nn.Module
    channels: int
    n_classes: int
    teacher_size: int
    student_size: int
    batches: Batches


class Family(Protocol):
    """A kind of candidate.

    from_teacher: whether its network starts with the teacher's weights.
    """

    from_teacher: bool

    def first_rung(self, task: Task) -> float:
        """Return how many images teach a candidate in the first rung: the same for all, whatever their input size."""

    def first(self, task: Task) -> list[dict[str, Any]]:
        """Return the choices to try first: what is known to be good elsewhere."""

    def propose(self, trial: optuna.Trial, task: Task) -> Candidate:
        """Return the candidate of a trial."""

    def build(self, candidate: Candidate, task: Task, seed: int) -> nn.Module:
        """Return the candidate's network before its training."""

    def describe(self, candidate: Candidate) -> str:
        """Return the candidate in a few words."""


class Residual:
    """Plain residual networks with dense 3x3 convolutions, trained from random weights."""

    from_teacher = False
    # A fifth of this tells noise from noise: 28 and 50 % of right answers where 93 % is the end.
    FIRST_RUNG_PIXELS = 20e6
    WIDTHS = (8, 16, 24, 32)
    # Smaller maps than 4x4 pixels have nothing left for another stage.
    SMALLEST_FOR_FOUR_STAGES = 48

    def first_rung(self, task: Task) -> float:
        """Return how many images teach a candidate in the first rung."""
        return self.FIRST_RUNG_PIXELS / task.student_size**2

    def first(self, task: Task) -> list[dict[str, Any]]:
        """Return the student that is known to be good for small pictures."""
        size = residual_sizes(task.student_size)[-1]
        stages = {"stages": 4} if size >= self.SMALLEST_FOR_FOUR_STAGES else {}
        return [{"input_size": size, "width": 16, "first_blocks": 1, "blocks": 2, **stages}]

    def propose(self, trial: optuna.Trial, task: Task) -> Candidate:
        """Return the candidate of a trial."""
        size = trial.suggest_categorical("input_size", residual_sizes(task.student_size))
        choices = {
            "width": trial.suggest_categorical("width", self.WIDTHS),
            "first_blocks": trial.suggest_int("first_blocks", 0, 1),
            "blocks": trial.suggest_int("blocks", 1, 3),
            "stages": trial.suggest_int("stages", 3, 4) if size >= self.SMALLEST_FOR_FOUR_STAGES else 3,
        }
        return Candidate("residual", size, choices)

    def build(self, candidate: Candidate, task: Task, seed: int) -> nn.Module:
        """Return the network with random weights."""
        widths, blocks = self.widths(candidate), self.blocks(candidate)
        stages = tuple(ResidualStage(width, 2, (width,) * count) for width, count in zip(widths, blocks, strict=True))
        return random_residual_cnn(ResidualCnnSpec(task.channels, stages, task.n_classes), seed)

    def widths(self, candidate: Candidate) -> list[int]:
        """Return the channels of every stage."""
        return [candidate.choices["width"] * 2**stage for stage in range(candidate.choices["stages"])]

    def blocks(self, candidate: Candidate) -> list[int]:
        """Return the residual blocks of every stage."""
        later = candidate.choices["stages"] - 1
        return [candidate.choices["first_blocks"], *[candidate.choices["blocks"]] * later]

    def describe(self, candidate: Candidate) -> str:
        """Return the candidate in a few words."""
        widths, blocks = ("-".join(map(str, part)) for part in (self.widths(candidate), self.blocks(candidate)))
        return f"residual, {candidate.input_size} px, {widths} channels, {blocks} blocks"


class Backbone:
    """The teacher at a lower resolution, narrower and shallower, trained on from its weights."""

    from_teacher = True
    FIRST_RUNG_PIXELS = 10e6
    CHANNEL_SHARES = (0.0, 0.25, 0.4, 0.5, 0.65)
    # Inner widths of the pretrained networks are multiples of 8.
    ROUND_TO = 8

    def first_rung(self, task: Task) -> float:
        """Return how many images teach a candidate in the first rung."""
        return self.FIRST_RUNG_PIXELS / task.teacher_size**2

    def first(self, task: Task) -> list[dict[str, Any]]:
        """Return the teacher at the next lower resolution, whole and half as wide."""
        size = backbone_sizes(task.teacher_size)[-2:][0]
        if not isinstance(task.teacher, InvertedResidualNet):
            return [{"input_size": size}]
        return [{"input_size": size, "channel_share": share, "removed_blocks": 0} for share in (0.0, 0.5)]

    def propose(self, trial: optuna.Trial, task: Task) -> Candidate:
        """Return the candidate of a trial."""
        size = trial.suggest_categorical("input_size", backbone_sizes(task.teacher_size))
        # A network of another zoo is no table of widths and blocks that could be cut.
        if not isinstance(task.teacher, InvertedResidualNet):
            return Candidate("backbone", size, {"channel_share": 0.0, "removed_blocks": 0})
        choices = {
            "channel_share": trial.suggest_categorical("channel_share", self.CHANNEL_SHARES),
            "removed_blocks": trial.suggest_int("removed_blocks", 0, min(4, len(removable_blocks(task.teacher)))),
        }
        return Candidate("backbone", size, choices)

    def build(self, candidate: Candidate, task: Task, seed: int) -> nn.Module:
        """Return the teacher's network without the least important blocks and channels, its statistics renewed."""
        del seed
        batches = task.batches(candidate.input_size)
        network = remove_blocks(copy.deepcopy(task.teacher), batches[0][0], candidate.choices["removed_blocks"])
        if candidate.choices["channel_share"]:
            share = candidate.choices["channel_share"]
            network = prune_channels(network, batches[0][0][:2], share, "taylor", self.ROUND_TO, batches)
        reestimate_batch_norms(network, [inputs for inputs, _ in batches])
        return network

    def describe(self, candidate: Candidate) -> str:
        """Return the candidate in a few words."""
        share, removed = candidate.choices["channel_share"], candidate.choices["removed_blocks"]
        parts = [f"the teacher at {candidate.input_size} px"]
        if share:
            parts.append(f"without {share:.0%} of its channels")
        if removed:
            parts.append(f"without {removed} of its blocks")
        return ", ".join(parts)


FAMILIES: dict[str, Family] = {"residual": Residual(), "backbone": Backbone()}
