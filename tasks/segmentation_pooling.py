"""What the folds of a cross-validation say together where images have masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kinglet.atomic import read_json
from kinglet.evidence.cross_validation import corrected_resampled_interval
from kinglet.evidence.mask_scores import mean_dice, mean_iou, pixel_accuracy
from tasks.artifacts import SPLIT, fold_folder
from tasks.parameters import Parameters

SCORES = {"pixel_accuracy": pixel_accuracy, "miou": mean_iou, "dice": mean_dice}


def read_confusion(path: Path, n_classes: int) -> NDArray[np.int64]:
    """Return the confusion of all images together, int64 (n_classes, n_classes), that a fold kept."""
    table = pd.read_parquet(path, columns=["truth", "predicted", "pixels"])
    total = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(total, (table["truth"].to_numpy(), table["predicted"].to_numpy()), table["pixels"].to_numpy())
    return total


def pool_masks(parameters: Parameters) -> dict[str, Any]:
    """Return the scores of the cross-validation, JSON-ready: by run, their spread, and pooled by repetition.

    Scores are of confusions added up over images.
    """
    settings, confidence = parameters.crossvalidate, parameters.evaluate.confidence
    n_classes = len(read_json(SPLIT / "classes.json"))
    found = {
        (repeat, fold): read_confusion(fold_folder(repeat, fold) / "predictions.parquet", n_classes)
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
            **scores_of(confusion),
        }
        for (repeat, fold), confusion in found.items()
    ]
    pooled = [
        {
            "repeat": repeat,
            **scores_of(np.sum([confusion for (own, _), confusion in found.items() if own == repeat], axis=0)),
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
