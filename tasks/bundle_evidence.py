"""What a bundle tells of a model that sorts into classes: which test images are golden, and what was found out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kinglet.atomic import read_json
from tasks.artifacts import BENCHMARK, EVALUATE, SPLIT
from tasks.image_tables import read_parquet
from tasks.model_card import CardEvidence


def golden_rows(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and labels of `count` test images, one class after the other, in order of the data set."""
    table = read_parquet(SPLIT / "manifest.parquet", ["index", "label_index"], "test")
    rows, labels = table["index"].to_numpy().astype(np.int64), table["label_index"].to_numpy().astype(np.int64)
    taken = one_of_each_class(rows, labels, count)
    return rows[taken], labels[taken]


def one_of_each_class(rows: NDArray[np.int64], labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the places of `count` images, one of each class after the other, those with low row numbers first."""
    order = np.lexsort((rows, labels))
    sorted_labels = labels[order]
    rank_in_class = np.arange(len(order)) - np.searchsorted(sorted_labels, sorted_labels)
    taken: NDArray[np.int64] = order[np.lexsort((sorted_labels, rank_in_class))][:count]
    return taken


def read_evidence(name: str, reason: str) -> CardEvidence:
    """Return what the steps found out about a model."""
    scores, benchmark = read_json(EVALUATE / "scores.json"), read_json(BENCHMARK / "latency.json")
    return CardEvidence(
        scores=scores["models"][name],
        latency=benchmark["models"][name],
        reference_latency=benchmark["models"][scores["teacher"]],
        device=benchmark["device"],
        threads=benchmark["threads"],
        reference="teacher",
        counts=read_json(SPLIT / "counts.json") if (SPLIT / "counts.json").is_file() else {},
        reason=reason,
    )
