"""Scores of models on the test images of each domain that the data set names, whatever their problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.artifacts import SPLIT
from tasks.image_slices import rows_of
from tasks.image_tables import read_parquet

# The key in scores.json, of every model.
BY_DOMAIN = "by_domain"
# What is scored of a domain: its score with its interval, None where no image of the domain defines it.
Score = Callable[[NDArray[np.int64]], dict[str, float] | None]


def places_by_domain(index: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Return {domain: places of its images among these}, by name; nothing where fewer than two domains are named.

    index: of test images in the manifest, int64 (n,).
    """
    table = read_parquet(SPLIT / "manifest.parquet", ["index", "domain"], "test")
    named = np.array([name or "" for name in table["domain"].to_pylist()], object)
    domains = named[rows_of(index, table["index"].to_numpy())]
    names = sorted(set(domains) - {""})
    return {name: np.flatnonzero(domains == name) for name in names} if len(names) > 1 else {}


def scores_by_domain(
    places: dict[str, NDArray[np.int64]], scores: dict[str, Any], name: str, score: Callable[[str], Score]
) -> dict[str, Any]:
    """Return the scores of all models with those by domain added, JSON-ready; unchanged without domains.

    scores: {model: its scores}. name: of the score by which the problem's models are judged. score: that of a model on
    the images at some places.
    """
    if not places:
        return scores
    return {
        model: {
            **of_model,
            BY_DOMAIN: {domain: {"n": len(own), name: score(model)(own)} for domain, own in places.items()},
        }
        for model, of_model in scores.items()
    }
