"""One training of the step `domains`, whatever the problem: what it learns from, and where it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import pandas as pd

from kinglet.reporting import Report
from kinglet.training.checkpoints import Checkpoint
from tasks.parameters import Parameters


class AnyRecipe(Protocol):
    """How networks of any problem are trained."""

    @property
    def phases(self) -> tuple[tuple[float, int], ...]:
        """(epochs, input size in pixels), one after the other."""

    @property
    def seed(self) -> int:
        """Of all random numbers."""

    @property
    def facts(self) -> dict[str, Any]:
        """What decides a training, JSON-ready."""


SomeRecipe = TypeVar("SomeRecipe", bound=AnyRecipe)


@dataclass(frozen=True)
class DomainRun(Generic[SomeRecipe]):
    """The teacher's recipe on the images of all domains, or of all but one.

    images: rows of the manifest, with their splits. checkpoint_of: from the name of a part of the training, "" for a
    training of one part, and what else decides it, to where it goes on if it was interrupted.
    """

    parameters: Parameters
    images: pd.DataFrame
    recipe: SomeRecipe
    checkpoint_of: Callable[[str, dict[str, Any]], Checkpoint]
    report: Report

    @property
    def checkpoint(self) -> Checkpoint:
        """Where a training of one part goes on."""
        return self.checkpoint_of("", {})
