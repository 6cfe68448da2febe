"""What the folds of a cross-validation say together where images have masks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kinglet.atomic import read_json
from kinglet.evidence.image_bootstrap import DrawnScores, draw_images
from kinglet.evidence.mask_scores import mean_dice, mean_iou, pixel_accuracy
from kinglet.evidence.segmentation_scores import weighted
from tasks.artifacts import SPLIT, fold_folder
from tasks.fold_scores import pooled_folds
from tasks.parameters import Parameters
from tasks.true_masks import scored_images

SCORES = {"pixel_accuracy": pixel_accuracy, "miou": mean_iou, "dice": mean_dice}


def read_confusions(path: Path, n_classes: int) -> NDArray[np.int64]:
    """Return the confusion of every image, int64 (n, n_classes, n_classes), that a fold kept; tiles of one together."""
    table = pd.read_parquet(path, columns=["index", "truth", "predicted", "pixels"])
    rows = np.unique(table["index"].to_numpy(np.int64))
    wholes = scored_images(rows, [str(row) for row in rows.tolist()]).wholes
    image = wholes[np.searchsorted(rows, table["index"].to_numpy())]
    found = np.zeros((int(wholes.max()) + 1, n_classes, n_classes), np.int64)
    np.add.at(found, (image, table["truth"].to_numpy(), table["predicted"].to_numpy()), table["pixels"].to_numpy())
    return found


def pool_masks(parameters: Parameters) -> dict[str, Any]:
    """Return the scores of the cross-validation, JSON-ready, as `pooled_folds` does.

    Scores are of confusions added up over images.
    """
    n_classes = len(read_json(SPLIT / "classes.json"))

    def read(repeat: int, fold: int) -> NDArray[np.int64]:
        return read_confusions(fold_folder(repeat, fold) / "predictions.parquet", n_classes)

    def draw(folds: list[NDArray[np.int64]]) -> DrawnScores:
        return draw_confusions(np.concatenate(folds), parameters.seed)

    return pooled_folds(parameters, tuple(SCORES), read, scores_of, draw)


def scores_of(confusions: NDArray[np.int64]) -> dict[str, float]:
    """Return the scores of images together by name. confusions: of each, int64 (n, n_classes, n_classes)."""
    together = confusions.sum(axis=0)
    return {name: float(score(together)) for name, score in SCORES.items()}


def draw_confusions(confusions: NDArray[np.int64], seed: int) -> DrawnScores:
    """Return the scores of images together and of resamples of them. confusions: as `scores_of` takes them."""
    rests_on = np.full(len(SCORES), int((confusions.sum(axis=(1, 2)) > 0).sum()), np.int64)
    return draw_images(partial(scores_under, confusions), tuple(SCORES), (), rests_on, len(confusions), seed=seed)


def scores_under(confusions: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scores under each weighting of the images, float64 (n_weightings, n_scores)."""
    together = weighted(confusions, weights)
    return np.column_stack([score(together) for score in SCORES.values()])
