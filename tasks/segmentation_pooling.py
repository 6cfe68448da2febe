"""What the folds of a cross-validation say together where images have masks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kinglet.atomic import read_json
from kinglet.evidence.cross_validation import corrected_resampled_interval
from kinglet.evidence.image_bootstrap import draw_images, intervals_of
from kinglet.evidence.mask_scores import mean_dice, mean_iou, pixel_accuracy
from kinglet.evidence.segmentation_scores import weighted
from tasks.artifacts import SPLIT, fold_folder
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
    """Return the scores of the cross-validation, JSON-ready: by run, their spread, and pooled by repetition.

    Scores are of confusions added up over images.
    """
    settings, confidence = parameters.crossvalidate, parameters.evaluate.confidence
    n_classes = len(read_json(SPLIT / "classes.json"))
    found = {
        (repeat, fold): read_confusions(fold_folder(repeat, fold) / "predictions.parquet", n_classes)
        for repeat in settings.repeats
        for fold in settings.folds
    }
    facts = {key: read_json(fold_folder(*key) / "fold.json") for key in found}
    runs = [
        {
            "repeat": repeat,
            "fold": fold,
            "n": facts[repeat, fold]["n"],
            "n_training": facts[repeat, fold]["n_training"],
            **scores_of(confusions.sum(axis=0)),
        }
        for (repeat, fold), confusions in found.items()
    ]
    pooled = [
        {
            "repeat": repeat,
            **intervals(
                np.concatenate([confusions for (own, _), confusions in found.items() if own == repeat]),
                confidence,
                parameters.seed,
            ),
        }
        for repeat in settings.repeats
    ]
    spread = {
        name: corrected_resampled_interval(
            np.array([run[name] for run in runs]), 1 / (len(settings.folds) - 1), confidence=confidence
        ).to_dict()
        for name in SCORES
    }
    return {
        "n": sum(facts[settings.repeats[0], fold]["n"] for fold in settings.folds),
        "epochs": max(fact["epochs"] for fact in facts.values()),
        **spread,
        "runs": runs,
        "pooled": pooled,
    }


def scores_of(confusion: NDArray[np.int64]) -> dict[str, float]:
    """Return the scores of a confusion by name, rounded to 6 digits after the point."""
    return {name: round(float(score(confusion)), 6) for name, score in SCORES.items()}


def intervals(confusions: NDArray[np.int64], confidence: float, seed: int) -> dict[str, dict[str, float]]:
    """Return the scores of images together by name, each with its bootstrap interval over the images."""
    rests_on = np.full(len(SCORES), int((confusions.sum(axis=(1, 2)) > 0).sum()), np.int64)
    drawn = draw_images(partial(scores_under, confusions), tuple(SCORES), (), rests_on, len(confusions), seed=seed)
    found = intervals_of(drawn, confidence=confidence).overall
    return {name: interval.to_dict() for name, interval in found.items() if interval is not None}


def scores_under(confusions: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scores under each weighting of the images, float64 (n_weightings, n_scores)."""
    together = weighted(confusions, weights)
    return np.column_stack([score(together) for score in SCORES.values()])
