"""How a long computation says how far it is, without knowing a terminal."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """Called with the units done, all units, and a word on where the computation stands."""

    def __call__(self, done: float, total: float, text: str = "") -> None:
        """Take note of it."""


def silent(done: float, total: float, text: str = "") -> None:
    """Report nothing."""
    del done, total, text
