"""Latencies as the steps compare them: measured, with an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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

    @classmethod
    def of_row(cls, row: Mapping[str, Any], precision: str, size_bytes: int = 0) -> Latency:
        """Return a model's latency in an entry of the latency table (`kinglet.runtime.latency_table`)."""
        return cls(row["p50_ms"], row["p50_low_ms"], row["p50_high_ms"], precision, size_bytes)


def is_faster(cut: Latency, whole: Latency) -> bool:
    """Return whether a network is faster than another one beyond doubt: their intervals do not touch."""
    return cut.high < whole.low
