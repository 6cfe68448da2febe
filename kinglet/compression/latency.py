"""Latencies as the steps compare them: measured, with an interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a network at batch 1: median and its interval, and the precision that they hold for.

    size_bytes: of the file that was timed; 0 where nobody asks for it.
    """

    value: float
    low: float
    high: float
    precision: str
    size_bytes: int = 0


def is_faster(cut: Latency, whole: Latency) -> bool:
    """Return whether a network is faster than another one beyond doubt: their intervals do not touch."""
    return cut.high < whole.low
