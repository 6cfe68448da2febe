"""Assign every usable image to train, validation, test or, where asked for, the sealed part, by its content."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from kinglet.atomic import atomic_path, write_json
from kinglet.data.splits import SEALED, SPLITS, assign_splits, missing_classes, split_counts
from kinglet.errors import KingletError
from tasks.artifacts import CHECK_DATA, GIVEN, PROFILE, SPLIT, UNLABELLED
from tasks.parameters import Parameters
from tasks.stage import run_stage

MANIFEST = SPLIT / "manifest.parquet"
CLASSES = SPLIT / "classes.json"
COUNTS = SPLIT / "counts.json"
COLUMNS = ["index", "path", "label", "label_index", "group", "domain", "split", "sha256"]


def run(parameters: Parameters) -> None:
    """Write `artifacts/split`: manifest.parquet, unlabelled.parquet, classes.json, counts.json.

    Raises KingletError if a class has no image in one of the parts.
    """
    images = usable_images()
    labels = images["label"].to_numpy(object)
    given = images["given_split"].to_numpy(object)
    assigned = assign_splits(
        images["pixels_sha256"].to_numpy(object),
        labels,
        images["group"].to_numpy(object),
        images["near_group"].to_numpy(np.int64),
        given if parameters.split.use_given else np.full_like(given, ""),
        validation=parameters.split.validation,
        test=parameters.split.test,
        seed=parameters.seed,
        sealed=parameters.split.sealed,
    )
    parts = (*SPLITS, SEALED) if parameters.split.sealed else SPLITS
    refuse_missing(missing_classes(labels, assigned, parts))
    classes = sorted(set(labels))
    number = {label: position for position, label in enumerate(classes)}
    images["split"] = assigned
    images["label_index"] = np.array([number[label] for label in labels], np.int64)
    with atomic_path(MANIFEST) as path:
        images[[*COLUMNS, *given_columns(images)]].to_parquet(path, index=False)
    unlabelled = pd.read_parquet(PROFILE / "unlabelled.parquet")
    judged = set(images.loc[images["split"] != "train", "index"])
    with atomic_path(UNLABELLED) as path:
        usable_unlabelled(unlabelled, judged)[["index", "path"]].to_parquet(path, index=False)
    write_json(CLASSES, classes)
    write_json(COUNTS, split_counts(labels, assigned, parts))


def given_columns(images: pd.DataFrame) -> list[str]:
    """Return the columns that only a person's table has."""
    return [name for name in images.columns if name.startswith(GIVEN)]


def usable_images() -> pd.DataFrame:
    """Return the rows of all images that are not quarantined, sorted by index."""
    images = pd.read_parquet(PROFILE / "images.parquet")
    quarantined = pd.read_csv(CHECK_DATA / "quarantine.csv", dtype=str, keep_default_na=False)
    kept = images[~images["path"].isin(set(quarantined["path"]))]
    return kept.sort_values("index", ignore_index=True)


def usable_unlabelled(unlabelled: pd.DataFrame, judged: set[int]) -> pd.DataFrame:
    """Return the images without a label that students may learn from, and print how many are left out and why.

    unlabelled: what `profile` wrote. judged: indices of the validation, test and sealed images: what resembles one
    of them would make the scores too good.
    """
    near = np.array([not judged.isdisjoint(others) for others in unlabelled["near"]], bool)
    pictures, copies = unlabelled["is_picture"].to_numpy(bool), unlabelled["is_copy"].to_numpy(bool)
    kept = pictures & ~copies & ~near
    if len(unlabelled):
        print(
            f"note: {kept.sum()} of {len(unlabelled)} images without a label are used; {(~pictures).sum()} are blank "
            f"or cannot be read, {(pictures & copies).sum()} are copies, {(pictures & ~copies & near).sum()} resemble "
            "validation or test images",
            file=sys.stderr,
        )
    return unlabelled[kept]


def refuse_missing(missing: list[tuple[str, str, int]]) -> None:
    """Raise KingletError that names the classes without an image in some part of the split."""
    if not missing:
        return
    sizes = {label: size for label, _, size in missing}
    parts = {label: " and ".join(part for name, part, _ in missing if name == label) for label in sizes}
    clauses = [f"class {label!r} ({size} images) has none in {parts[label]}" for label, size in sizes.items()]
    raise KingletError(
        f"The split is not possible: {'; '.join(clauses[:5])}{'; ...' if len(clauses) > 5 else ''}.",
        "Each class needs an image for every part that is no near-duplicate of the others and of another group: "
        "add images, name the class in data.ignore_classes, or set split.use_given to false.",
    )


if __name__ == "__main__":
    run_stage(run)
