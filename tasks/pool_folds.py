"""Step `pool_folds`: the scores of the cross-validation, and the answer to every image by a model that never saw it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from kinglet.atomic import atomic_path, read_json, write_json
from kinglet.evidence.bootstrap import accuracy_interval, f1_macro_interval
from kinglet.evidence.metrics import accuracy, class_scores, confusion_matrix
from tasks.artifacts import FOLD_PLAN, OUT_OF_FOLD, POOL_FOLDS, SPLIT, fold_folder
from tasks.detection_pooling import pool_boxes
from tasks.fold_scores import spread_of
from tasks.parameters import Parameters
from tasks.segmentation_pooling import pool_masks
from tasks.stage import run_stage


@dataclass(frozen=True)
class Fold:
    """What one run left: facts as in fold.json, and its images' index, label and probabilities, (n, n_classes)."""

    repeat: int
    number: int
    facts: dict[str, Any]
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    def confusion(self) -> NDArray[np.int64]:
        """Return the counts of labels and predictions."""
        return confusion_matrix(self.labels, self.probabilities.argmax(axis=1), self.probabilities.shape[1])


def run(parameters: Parameters) -> None:
    """Write scores.json and out_of_fold.parquet; both are empty without folds.

    The latter holds classes of images, and none where the problem is another.
    """
    settings = parameters.crossvalidate
    scores, folds = POOLING[parameters.network](parameters) if settings.folds else ({}, [])
    write_answers(OUT_OF_FOLD, folds)
    facts = {"folds": len(settings.folds), "repeats": len(settings.repeats), **read_json(FOLD_PLAN)}
    write_json(POOL_FOLDS / "scores.json", {**facts, **scores})


def pool_classes(parameters: Parameters) -> tuple[dict[str, Any], list[Fold]]:
    """Return the scores, JSON-ready, and the folds with their answers."""
    settings, confidence, seed = parameters.crossvalidate, parameters.evaluate.confidence, parameters.seed
    folds = [read_fold(repeat, fold) for repeat in settings.repeats for fold in settings.folds]
    runs = [run_scores(fold) for fold in folds]
    scores = {
        "n": len(pooled_answers(folds)[0]),
        "epochs": max(fold.facts["epochs"] for fold in folds),
        **spread_of(runs, ("accuracy", "f1_macro"), len(settings.folds), confidence),
        "runs": runs,
        "pooled": [pooled_scores(folds, repeat, confidence, seed) for repeat in settings.repeats],
    }
    return scores, folds


def read_fold(repeat: int, number: int) -> Fold:
    """Return what a run of the cross-validation left."""
    folder = fold_folder(repeat, number)
    table = pa.parquet.read_table(folder / "predictions.parquet")
    values = table["probabilities"].combine_chunks()
    return Fold(
        repeat,
        number,
        read_json(folder / "fold.json"),
        table["index"].to_numpy().astype(np.int64),
        table["label"].to_numpy().astype(np.int64),
        values.flatten().to_numpy().reshape(len(table), values.type.list_size),
    )


def run_scores(fold: Fold) -> dict[str, Any]:
    """Return one run's scores, JSON-ready."""
    confusion = fold.confusion()
    scores = class_scores(confusion)
    return {
        "repeat": fold.repeat,
        "fold": fold.number,
        "n": fold.facts["n"],
        "n_training": fold.facts["n_training"],
        "accuracy": round(accuracy(confusion), 6),
        "f1_macro": round(scores.macro(scores.f1), 6),
    }


def pooled_scores(folds: list[Fold], repeat: int, confidence: float, seed: int) -> dict[str, Any]:
    """Return the scores of one repetition over all images together, with bootstrap intervals, JSON-ready."""
    own = [fold for fold in folds if fold.repeat == repeat]
    confusion = np.sum([fold.confusion() for fold in own], axis=0)
    correct = np.concatenate([fold.probabilities.argmax(axis=1) == fold.labels for fold in own])
    return {
        "repeat": repeat,
        "accuracy": accuracy_interval(correct, confidence=confidence, seed=seed).to_dict(),
        "f1_macro": f1_macro_interval(confusion, confidence=confidence, seed=seed).to_dict(),
    }


def pooled_answers(folds: list[Fold]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return index, label and probabilities of every image, sorted by index; the mean over repetitions."""
    index = np.concatenate([fold.index for fold in folds])
    labels = np.concatenate([fold.labels for fold in folds])
    probabilities = np.concatenate([fold.probabilities for fold in folds]).astype(np.float64)
    found, first, place = np.unique(index, return_index=True, return_inverse=True)
    total = np.zeros((len(found), probabilities.shape[1]))
    np.add.at(total, place, probabilities)
    return found, labels[first], (total / np.bincount(place)[:, None]).astype(np.float32)


def write_answers(path: Path, folds: list[Fold]) -> None:
    """Write one row for every image: index, path, label, predicted, confidence, probabilities."""
    table = pa.table(
        {
            "index": pa.array([], pa.int64()),
            "path": pa.array([], pa.string()),
            "label": pa.array([], pa.int64()),
            "predicted": pa.array([], pa.int64()),
            "confidence": pa.array([], pa.float32()),
            "probabilities": pa.array([], pa.list_(pa.float32(), 1)),
        }
    )
    if folds:
        index, labels, probabilities = pooled_answers(folds)
        manifest = pa.parquet.read_table(SPLIT / "manifest.parquet", columns=["index", "path"])
        path_of = dict(zip(manifest["index"].to_pylist(), manifest["path"].to_pylist(), strict=True))
        table = pa.table(
            {
                "index": index,
                "path": [path_of[row] for row in index.tolist()],
                "label": labels,
                "predicted": probabilities.argmax(axis=1),
                "confidence": probabilities.max(axis=1),
                "probabilities": pa.FixedSizeListArray.from_arrays(probabilities.ravel(), probabilities.shape[1]),
            }
        )
    with atomic_path(path) as temporary:
        pa.parquet.write_table(table, temporary, compression="zstd")


# Scores of the folds by the problem, and what they answer where that is a class of an image.
POOLING: dict[str, Callable[[Parameters], tuple[dict[str, Any], list[Fold]]]] = {
    "classification": pool_classes,
    "detection": lambda parameters: (pool_boxes(parameters), []),
    "segmentation": lambda parameters: (pool_masks(parameters), []),
    "video": pool_classes,
}


if __name__ == "__main__":
    run_stage(run)
