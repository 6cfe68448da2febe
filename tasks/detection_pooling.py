"""What the folds of a cross-validation say together where images have boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet

from kinglet.atomic import read_json
from kinglet.evidence.detection_intervals import draw_scores
from kinglet.evidence.detection_matches import Matches, match_objects
from kinglet.evidence.detection_scores import detection_scores
from kinglet.evidence.image_bootstrap import DrawnScores
from kinglet.runtime.detection import SHOWN_FROM
from tasks.artifacts import FOLDS, SPLIT, fold_folder
from tasks.detection_answers import boxed_rows, detections_in
from tasks.fold_scores import pooled_folds
from tasks.found_objects import Found, together
from tasks.parameters import Parameters

SCORES = ("map_50", "map")


def pool_boxes(parameters: Parameters) -> dict[str, Any]:
    """Return the scores of the cross-validation, JSON-ready, as `pooled_folds` does.

    Scores of several folds rank the detections of all of them by their scores, as one detector's are ranked.
    """
    classes = read_json(SPLIT / "classes.json")

    def read(repeat: int, fold: int) -> Found:
        return read_answers(repeat, fold, classes)

    def scores_of(found: Found) -> dict[str, float]:
        scores = detection_scores(matches_of(found, len(classes)), np.ones((1, found.n_images)), SHOWN_FROM)
        return {name: float(scores.table[0, scores.names.index(name)]) for name in SCORES}

    def draw(folds: list[Found]) -> DrawnScores:
        return draw_scores(matches_of(together(folds), len(classes)), SHOWN_FROM, seed=parameters.seed)

    return pooled_folds(parameters, SCORES, read, scores_of, draw)


def read_answers(repeat: int, fold: int, classes: list[str]) -> Found:
    """Return what the detector of a fold found in its images, beside their boxes."""
    plan = pd.read_parquet(FOLDS)
    rows = plan.loc[(plan["repeat"] == repeat) & (plan["fold"] == fold), "index"].to_numpy(np.int64)
    images = boxed_rows(rows, [f"image {row}" for row in rows.tolist()], classes)
    table = pyarrow.parquet.read_table(fold_folder(repeat, fold) / "predictions.parquet")
    return Found(images.truths, detections_in(table, rows), len(rows))


def matches_of(found: Found, n_classes: int) -> Matches:
    """Return how objects and detections find each other."""
    return match_objects(found.truths, found.found, found.n_images, n_classes)
