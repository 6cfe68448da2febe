"""The images or clips of one split that models are scored on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.artifacts import SPLIT
from tasks.image_tables import read_scored
from tasks.progress import Report
from tasks.scored_models import finite_softmax, report_rows

# Takes the rows done and all rows.
Done = Callable[[float, float], None]


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


def on_held_out(
    held_out: Mapping[str, HeldOut],
    logits_of: Callable[[NDArray[np.int64], Done], NDArray[np.float32]],
    file: Path,
    report: Report,
    done: float,
    total: float,
) -> dict[str, NDArray[np.float32]]:
    """Return a model's probabilities on every held-out split, {split: float32 (n, ..., n_classes)}.

    logits_of: of these rows of the packed files, given what it reports the rows done and all rows to. file: the
    model's. done, total: rows of all models and splits, those before this model and all.
    """
    probabilities = {}
    for split, part in held_out.items():
        logits = logits_of(part.rows, partial(report_rows, report, file.parent.name, done, total))
        probabilities[split] = finite_softmax(logits, file, split)
        done += len(part.rows)
    return probabilities
