"""Measure facts about every image and about the data set as a whole.

`python -m tasks.profile --accept` makes the measured data set the reference that later versions are
compared with: it writes data/reference_profile.json, which belongs under version control.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kinglet.atomic import atomic_path, read_json, write_json
from kinglet.data.drift import drift, reference_profile
from kinglet.data.duplicates import BLANK_CONTRAST, exact_groups, near_groups
from kinglet.data.quality import describe_data_set
from kinglet.data.statistics import measure
from kinglet.errors import KingletError
from kinglet.runtime.image_statistics import luma
from tasks.artifacts import INGEST, PROFILE, packed_images, read_input_sizes
from tasks.clip_profile import clip_facts, near_groups_of_clips
from tasks.detection_profile import box_facts
from tasks.label_facts import LabelFacts, class_facts
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.segmentation_profile import mask_facts
from tasks.stage import exit_code_of, run_stage

IMAGE_FACTS = PROFILE / "images.parquet"
UNLABELLED_FACTS = PROFILE / "unlabelled.parquet"
DATA_SET_FACTS = PROFILE / "dataset.json"
REFERENCE = Path("data/reference_profile.json")

IMAGES_AT_ONCE = 512
# Images that have classes and no boxes have no n_boxes, and only clips have motion.
DRIFT_COLUMNS = ("brightness", "contrast", "sharpness", "width", "height", "n_boxes", "motion")


def run(parameters: Parameters) -> None:
    """Write `artifacts/profile`: images.parquet, a row per image, dataset.json, and unlabelled.parquet."""
    labels = LABEL_FACTS[parameters.network](pd.read_parquet(INGEST / "manifest.parquet"))
    images = labels.images
    unlabelled = pd.read_parquet(INGEST / "unlabelled.parquet")
    packed = np.load(packed_images(read_input_sizes().all[-1]), mmap_mode="r")
    facts_of_all = measure_all(packed, "middle frames" if parameters.network == "video" else "images")
    facts = {name: values[: len(images)] for name, values in facts_of_all.items()}
    decoded = images["decode_ok"].to_numpy()
    for name, values in facts.items():
        images[name] = values if name == "perceptual_hash" else np.where(decoded, values, np.nan)
    images["exact_group"] = exact_groups(images["pixels_sha256"].to_numpy(object))
    distance = parameters.check.near_duplicate_distance
    if parameters.network == "video":
        images["near_group"] = near_groups_of_clips(images, is_picture(images, facts), distance)
    else:
        images["near_group"] = near_groups_of(images, facts, packed, distance)
    moved = drift_from_reference(images, labels.class_counts)
    with atomic_path(IMAGE_FACTS) as path:
        images.to_parquet(path, index=False)
    described = describe_data_set(images.assign(label=labels.labels), moved)
    write_json(DATA_SET_FACTS, {**described, **labels.facts})
    with atomic_path(UNLABELLED_FACTS) as path:
        facts_of_unlabelled(images, unlabelled, facts_of_all, packed, distance).to_parquet(path, index=False)


def near_groups_of(
    images: pd.DataFrame, facts: dict[str, NDArray[np.generic]], packed: NDArray[np.uint8], distance: int
) -> NDArray[np.int64]:
    """Return the group of near-duplicates of each image, the first rows of `packed`, with its exact group."""
    return near_groups(
        facts["perceptual_hash"].astype(np.uint64),
        images["exact_group"].to_numpy(),
        is_picture(images, facts),
        distance,
        lambda rows: luma(packed[rows]),
    )


def is_picture(images: pd.DataFrame, facts: dict[str, NDArray[np.generic]]) -> NDArray[np.bool_]:
    """Return whether each image decoded and is not blank."""
    return images["decode_ok"].to_numpy(bool) & (facts["contrast"].astype(np.float64) >= BLANK_CONTRAST)


def facts_of_unlabelled(
    images: pd.DataFrame,
    unlabelled: pd.DataFrame,
    facts: dict[str, NDArray[np.generic]],
    packed: NDArray[np.uint8],
    distance: int,
) -> pd.DataFrame:
    """Return a row for each image without a label: which of the others it is like.

    is_picture: it decoded and is not blank. is_copy: another one before it has the same pixels. near: indices of
    the labelled images in its group of near-duplicates. The groups of `images` stay as they are: what has no label
    must not move an image that has one to another part of the split.
    """
    everything = pd.concat([images[list(unlabelled)], unlabelled], ignore_index=True)
    everything["exact_group"] = exact_groups(everything["pixels_sha256"].to_numpy(object))
    # Without any, nothing is to be found.
    groups = near_groups_of(everything, facts, packed, distance) if len(unlabelled) else np.empty(0, np.int64)
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups[: len(images)].tolist()):
        members.setdefault(group, []).append(index)
    own = np.arange(len(images), len(everything))
    return pd.DataFrame(
        {
            "index": own,
            "path": unlabelled["path"].to_numpy(),
            "is_picture": is_picture(everything, facts)[len(images) :],
            "is_copy": everything["exact_group"].to_numpy()[len(images) :] != own,
            "near": pd.Series([members.get(group, []) for group in groups[len(images) :].tolist()], dtype=object),
        }
    )


def drift_from_reference(images: pd.DataFrame, class_counts: dict[str, int]) -> dict[str, float] | None:
    """Return how far the images moved from the version accepted last, None if none was accepted.

    Raises KingletError if its profile cannot be understood.
    """
    try:
        reference = read_json(REFERENCE) if REFERENCE.exists() else {}
        return drift(reference, drift_columns(images), class_counts) if reference else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KingletError(
            f"{REFERENCE} is no profile of a data set ({type(error).__name__}: {error}).",
            "Restore it with `git checkout`, or write {} into it to start anew.",
        ) from None


def measure_all(packed: NDArray[np.uint8], of: str) -> dict[str, NDArray[np.generic]]:
    """Return the measured facts of all packed images, a bounded number of them in memory at a time.

    of: what the display of the progress calls them.
    """
    parts = []
    with progress("profile") as report:
        for first in range(0, len(packed), IMAGES_AT_ONCE):
            parts.append(measure(packed[first : first + IMAGES_AT_ONCE]))
            report(min(first + IMAGES_AT_ONCE, len(packed)), len(packed), of)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def drift_columns(images: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Return the columns whose distribution is compared, of the images that decoded."""
    decoded = images[images["decode_ok"]]
    return {name: decoded[name].to_numpy(np.float64) for name in DRIFT_COLUMNS if name in images}


def accept() -> None:
    """Write the measured data set as the reference for drift."""
    if not IMAGE_FACTS.exists():
        raise KingletError(f"{IMAGE_FACTS} does not exist yet.", "Run `dvc repro profile` first.")
    images = pd.read_parquet(IMAGE_FACTS)
    class_counts = read_json(DATA_SET_FACTS)["class_counts"]
    write_json(REFERENCE, reference_profile(drift_columns(images), class_counts))
    print(f"{REFERENCE} now describes this data set ({len(images)} images); commit it.", file=sys.stderr)


LABEL_FACTS: dict[str, Callable[[pd.DataFrame], LabelFacts]] = {
    "classification": class_facts,
    "detection": box_facts,
    "segmentation": mask_facts,
    "video": clip_facts,
}

if __name__ == "__main__":
    if sys.argv[1:] == ["--accept"]:
        sys.exit(exit_code_of(accept))
    run_stage(run)
