"""Put every image that is not a test image into a fold of the cross-validation, by its content."""

from __future__ import annotations

import shutil
import sys
from collections import Counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kinglet.atomic import atomic_path, read_json, write_json
from kinglet.data.folds import classes_in_one_fold, plan_folds
from kinglet.data.splits import components
from kinglet.errors import KingletError
from tasks.artifacts import CROSSVALIDATE, FOLD_PLAN, FOLDS, PROFILE, SPLIT, fold_folder
from tasks.parameters import Parameters
from tasks.stage import run_stage
from tasks.training_settings import Crossvalidate

COLUMNS = {"index": "int64", "repeat": "int64", "fold": "int64", "draw": "float64"}


def run(parameters: Parameters) -> None:
    """Write folds.parquet, one row for every image and repetition, and plan.json.

    Raises KingletError if there are fewer independent images than folds.
    """
    settings = parameters.crossvalidate
    forget_other_folds(settings)
    classes: list[str] = read_json(SPLIT / "classes.json")
    images = images_for_folds()
    parts = [pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})]
    notes: dict[str, None] = {}
    alone: set[int] = set()
    for repeat in settings.repeats if settings.folds else []:
        part = folds_of(images, len(settings.folds), repeat, parameters.seed)
        labels, fold = images["label_index"].to_numpy(np.int64), part["fold"].to_numpy(np.int64)
        alone |= set(classes_in_one_fold(labels, fold))
        notes |= dict.fromkeys(remarks(images, labels, fold, classes))
        parts.append(part)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    with atomic_path(FOLDS) as path:
        pd.concat(parts[1:] or parts, ignore_index=True)[list(COLUMNS)].to_parquet(path, index=False)
    write_json(FOLD_PLAN, {"notes": list(notes), "classes_in_one_fold": [classes[label] for label in sorted(alone)]})


def forget_other_folds(settings: Crossvalidate) -> None:
    """Remove what earlier settings left of folds that there are no more: the next step reads the whole folder."""
    kept = {fold_folder(repeat, fold) for repeat in settings.repeats for fold in settings.folds}
    for folder in sorted(CROSSVALIDATE.glob("*-*/")):
        if folder not in kept:
            shutil.rmtree(folder)


def images_for_folds() -> pd.DataFrame:
    """Return the training and validation images, sorted by index, with what says who belongs together."""
    manifest = pd.read_parquet(SPLIT / "manifest.parquet", columns=["index", "label_index", "group", "split"])
    facts = pd.read_parquet(PROFILE / "images.parquet", columns=["index", "pixels_sha256", "near_group"])
    # By name: sealed images belong to no fold either.
    used = manifest[manifest["split"].isin(["train", "validation"])]
    return used.merge(facts, on="index").sort_values("index", ignore_index=True)


def folds_of(images: pd.DataFrame, n_folds: int, repeat: int, seed: int) -> pd.DataFrame:
    """Return the rows of one repetition; raises KingletError if there are too few independent images."""
    try:
        plan = plan_folds(
            images["pixels_sha256"].to_numpy(object),
            images["label_index"].to_numpy(np.int64),
            images["group"].to_numpy(object),
            images["near_group"].to_numpy(np.int64),
            n_folds=n_folds,
            repeat=repeat,
            seed=seed,
        )
    except ValueError as error:
        raise KingletError(
            f"The cross-validation is not possible: {error} (groups and near-duplicates stay together).",
            "Name fewer folds in crossvalidate.folds, [] for no cross-validation, or add images.",
        ) from None
    return pd.DataFrame({"index": images["index"], "repeat": repeat, "fold": plan.fold, "draw": plan.draw})


def remarks(images: pd.DataFrame, labels: NDArray[np.int64], fold: NDArray[np.int64], classes: list[str]) -> list[str]:
    """Return a sentence for every class that cannot be in every fold, and for a set that is larger than a fold."""
    n_folds = int(fold.max())
    said = []
    for label in np.unique(labels):
        n_images, n_with = int((labels == label).sum()), len(np.unique(fold[labels == label]))
        if n_with == 1:
            said.append(
                f"class {classes[label]!r}: its {n_images} images belong together or are one, so the model that is "
                "asked about them has seen none; they are left out of the search for label errors"
            )
        elif n_with < n_folds:
            said.append(f"class {classes[label]!r} with {n_images} images is in {n_with} of {n_folds} folds only")
    together = components(images["near_group"].to_numpy(np.int64), images["group"].to_numpy(object))
    largest, fair = max(Counter(together.tolist()).values()), len(images) / n_folds
    if largest > fair:
        said.append(
            f"{largest:,} images belong together, more than the {fair:,.0f} of an even fold: their fold is larger, "
            "and its model has fewer to learn from"
        )
    return said


if __name__ == "__main__":
    run_stage(run)
