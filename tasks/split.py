"""Assign every usable image to train, validation, test or, where asked for, the sealed part, by its content.

Images of a domain that models are to be adapted to (`adapt.target`) have two parts of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kinglet.atomic import atomic_path, read_json, write_json
from kinglet.data.splits import (
    ADAPTATION,
    FEWEST_TO_ADAPT,
    FEWEST_TO_JUDGE,
    SEALED,
    SPLITS,
    TARGET_TEST,
    ShownClasses,
    any_number_each,
    assign_splits,
    in_every_pixel,
    missing_classes,
    one_class_each,
    split_counts,
    target_parts,
)
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

    Raises KingletError if a class has no image in one of the parts, or if the target domain is unknown or too small.
    """
    images = usable_images()
    classes = CLASSES_OF[parameters.network](images)
    is_target = images_of(parameters.adapt.domain, images, parameters.several)
    assigned = assigned_parts(images, classes.shown, is_target, parameters)
    parts = (*SPLITS, SEALED) if parameters.split.sealed else SPLITS
    refuse_missing(missing_classes(classes, assigned, parts))
    if is_target.any():
        refuse_small_target(parameters.adapt.target, assigned, parameters.several)
        parts = (*parts, ADAPTATION, TARGET_TEST)
    images["split"] = assigned
    images["label_index"] = classes.label_index
    with atomic_path(MANIFEST) as path:
        images[[*COLUMNS, *given_columns(images)]].to_parquet(path, index=False)
    unlabelled = pd.read_parquet(PROFILE / "unlabelled.parquet")
    judged = set(images.loc[images["split"] != "train", "index"])
    with atomic_path(UNLABELLED) as path:
        usable_unlabelled(unlabelled, judged)[["index", "path"]].to_parquet(path, index=False)
    write_json(CLASSES, classes.names)
    write_json(COUNTS, split_counts(classes, assigned, parts))


def images_of(domain: str | None, images: pd.DataFrame, several: str) -> NDArray[np.bool_]:
    """Return which images are of the domain, bool (n,); None: none are. several: what the images are.

    Raises KingletError if no image is, or if all are.
    """
    domains = images["domain"].to_numpy(object)
    if domain is None:
        return np.zeros(len(images), bool)
    found, one = np.asarray(domains == domain, bool), several.removesuffix("s")
    if not found.any():
        known = sorted(set(domains) - {""})
        there = f"known domains: {', '.join(known)}" if known else f"no {one} has a domain"
        raise KingletError(
            f"params.yaml: adapt.target is {domain!r}, and no {one} is of that domain; {there}.",
            "A table names domains in its column `domain`, a folder of videos, or one with boxes or masks, in its "
            "domains.csv.",
        )
    if found.all():
        raise KingletError(
            f"params.yaml: adapt.target is {domain!r}, and all {several} are of that domain: none is left to train on.",
            f"Add {several} of other domains, or set adapt.target to demonstration.",
        )
    return found


def classes_of_images(images: pd.DataFrame) -> ShownClasses:
    """Return the class of each image."""
    return one_class_each(images["label"].to_numpy(object))


def classes_of_boxes(images: pd.DataFrame) -> ShownClasses:
    """Return the classes of the boxes of each image."""
    return any_number_each([list(labels) for labels in images["box_labels"]])


def classes_of_masks(images: pd.DataFrame) -> ShownClasses:
    """Return the classes of the pixels of each image, in the order of their index in the masks."""
    names: list[str] = read_json(PROFILE / "dataset.json")["masks"]["classes"]
    return in_every_pixel(names, np.array(images["class_pixels"].tolist(), np.int64).reshape(-1, len(names)))


def assigned_parts(
    images: pd.DataFrame, shown: NDArray[np.bool_], is_target: NDArray[np.bool_], parameters: Parameters
) -> NDArray[np.object_]:
    """Return the part of each image, shape (n,); those of the target domain have parts of their own.

    shown: which image shows which class, bool (n, n_classes).
    """
    pixels, groups = images["pixels_sha256"].to_numpy(object), images["group"].to_numpy(object)
    near_groups, given = images["near_group"].to_numpy(np.int64), images["given_split"].to_numpy(object)
    if not parameters.split.use_given:
        given = np.full_like(given, "")
    assigned, source = np.empty(len(images), object), ~is_target
    assigned[source] = assign_splits(
        pixels[source],
        shown[source],
        groups[source],
        near_groups[source],
        given[source],
        validation=parameters.split.validation,
        test=parameters.split.test,
        seed=parameters.seed,
        sealed=parameters.split.sealed,
    )
    held_out = parameters.adapt.held_out
    assigned[is_target] = target_parts(
        pixels, groups, near_groups, given, is_target, held_out=held_out, seed=parameters.seed
    )
    return assigned


def refuse_small_target(target: str, assigned: NDArray[np.object_], several: str) -> None:
    """Raise KingletError if the target domain has too few images in one of its parts. several: what the images are."""
    n_adaptation, n_judging = (int((assigned == part).sum()) for part in (ADAPTATION, TARGET_TEST))
    if n_adaptation >= FEWEST_TO_ADAPT and n_judging >= FEWEST_TO_JUDGE:
        return
    raise KingletError(
        f"The domain {target!r} has {n_adaptation} {several} to adapt to and {n_judging} to judge that; "
        f"{FEWEST_TO_ADAPT} and {FEWEST_TO_JUDGE} are needed. Those that resemble or belong together with {several} of "
        "other domains judge nothing.",
        f"Add {several} of that domain, or change adapt.held_out.",
    )


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


CLASSES_OF: dict[str, Callable[[pd.DataFrame], ShownClasses]] = {
    "classification": classes_of_images,
    "detection": classes_of_boxes,
    "segmentation": classes_of_masks,
    "video": classes_of_images,
}

if __name__ == "__main__":
    run_stage(run)
