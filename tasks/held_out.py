"""The images or clips of one split that models are scored on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.artifacts import SPLIT
from tasks.image_tables import read_scored


@dataclass(frozen=True)
class HeldOut:
    """The images of one split: rows of the packed files, paths and labels, all of shape (n,)."""

    rows: NDArray[np.int64]
    paths: list[str]
    labels: NDArray[np.int64]

    def first(self, count: int) -> HeldOut:
        """Return the first of them, at most `count`."""
        return HeldOut(self.rows[:count], self.paths[:count], self.labels[:count])


def read_held_out(split: str) -> HeldOut:
    """Return the images of a split; raises KingletError if there are none."""
    table = read_scored(SPLIT / "manifest.parquet", ["index", "path", "label_index"], split)
    return HeldOut(
        rows=table["index"].to_numpy().astype(np.int64),
        paths=table["path"].to_pylist(),
        labels=table["label_index"].to_numpy().astype(np.int64),
    )
