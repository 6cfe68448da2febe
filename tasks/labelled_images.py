"""Labelled images of any source, decoded once into one packed array, for commands that work beside the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kinglet.data.packing import Packing, create_packed_file
from kinglet.data.sources import Record, open_source
from kinglet.data.splits import assign_splits, one_class_each, unit_hash
from kinglet.errors import KingletError
from tasks.ingest import decode_all
from tasks.opened_source import tell

MAX_PIXELS = 100_000_000
# Shares of the images: most of them measure, since nothing is trained; the rest calibrate.
VALIDATION, TEST = 0.3, 0.5
PARTS = ("calibration", "validation", "test")
LEAST_CALIBRATION = 50

Result = TypeVar("Result")


@dataclass(frozen=True)
class LabelledImages:
    """The usable images of a source.

    packed: uint8 (n_files, size, size, channels), memory-mapped. rows: int64 (n,), the usable ones. paths, labels,
    groups, given_splits, pixels_sha256: of those, str arrays of shape (n,). left_out: path and reason of all others.
    n_files: how many the source holds, more than were read where only some were asked for.
    """

    packed: NDArray[np.uint8]
    rows: NDArray[np.int64]
    paths: NDArray[np.object_]
    labels: NDArray[np.object_]
    groups: NDArray[np.object_]
    given_splits: NDArray[np.object_]
    pixels_sha256: NDArray[np.object_]
    left_out: list[dict[str, str]]
    n_files: int


def open_labelled_images(
    location: str, packed_file: Path, size: int, channels: int, fit: str, max_images: int | None = None, seed: int = 0
) -> LabelledImages:
    """Return the images of a source, packed into `packed_file`, an .npy file.

    location: a folder with one sub-folder per class, a .csv or .parquet table, an s3:// prefix, a description.
    size, channels, fit: as in `Preprocessing`. max_images: read no more than these many, chosen by their paths.
    Unreadable images, and equal ones with two labels, are left out.
    Raises KingletError if the source cannot be opened or no image is usable.
    """
    source = told_as_option(lambda: open_source(location, str(Path(location).parent)))
    tell(source, {})
    records = sample(source.records, max_images, seed)
    create_packed_file(packed_file, len(records), size, channels)
    packing = Packing({size: packed_file}, channels, fit, MAX_PIXELS)
    facts = decode_all(records, source, packing, "read images")
    left_out = unusable(facts)
    kept = [row for row in facts if row["path"] not in left_out]
    if not kept:
        raise KingletError(
            f"--data: none of the {len(facts)} files of {location} is usable: {next(iter(left_out.values()))}.",
            "Name a folder with one sub-folder of images per class.",
        )

    def column(name: str) -> NDArray[np.object_]:
        return np.array([row[name] for row in kept], object)

    return LabelledImages(
        packed=np.load(packed_file, mmap_mode="r"),
        rows=np.array([row["index"] for row in kept], np.int64),
        paths=column("path"),
        labels=column("label"),
        groups=column("group"),
        given_splits=column("given_split"),
        pixels_sha256=column("pixels_sha256"),
        left_out=[{"path": path, "reason": reason} for path, reason in sorted(left_out.items())],
        n_files=len(source.records),
    )


def told_as_option(action: Callable[[], Result]) -> Result:
    """Return what `action` returns; its errors name the option --data, not the setting of params.yaml."""
    try:
        return action()
    except KingletError as error:
        raise KingletError(error.message.replace("data.source", "--data"), error.hint) from None


def sample(records: list[Record], count: int | None, seed: int) -> list[Record]:
    """Return at most `count` of the records, chosen by the hashes of their paths, in order."""
    if count is None or len(records) <= count:
        return records
    chosen = sorted(records, key=lambda record: unit_hash(record.path, seed))[:count]
    return sorted(chosen, key=lambda record: record.path)


def unusable(facts: list[dict[str, object]]) -> dict[str, str]:
    """Return {path: reason} of the images that cannot be read, have no label, or have two labels."""
    # Half a second of imports that only this needs.
    import pandas as pd

    from kinglet.data.duplicates import exact_groups
    from kinglet.data.quality import conflicting, quarantine

    images = pd.DataFrame(facts)
    images["exact_group"] = exact_groups(images["pixels_sha256"].to_numpy(object))
    images["readable"] = images["decode_ok"]
    images["labelled"] = images["label"] != ""
    images["conflicting"] = conflicting(images)
    left_out = quarantine(images, with_conflicts=True)
    return dict(zip(left_out["path"], left_out["reason"], strict=True))


def divide(images: LabelledImages, seed: int) -> dict[str, NDArray[np.int64]]:
    """Return the places of the images for each of `PARTS`, by their content, in random order.

    Equal images, and those of one group, share a part. Where the source brings a test part, or a validation part,
    it is kept. Raises KingletError if the calibration part is too small, or all images are of one class.
    """
    if len(set(images.labels)) < 2:
        raise KingletError(
            f"--data: all {len(images.labels)} images are of one class, {images.labels[0]!r}.",
            "Images of all classes are needed to calibrate and to compare.",
        )
    same = {digest: number for number, digest in enumerate(images.pixels_sha256)}
    assigned = assign_splits(
        images.pixels_sha256,
        one_class_each(images.labels).shown,
        images.groups,
        np.array([same[digest] for digest in images.pixels_sha256], np.int64),
        images.given_splits,
        validation=VALIDATION,
        test=TEST,
        seed=seed,
    )
    order = np.random.default_rng(seed).permutation(len(assigned))
    places = {
        part: order[assigned[order] == side] for part, side in zip(PARTS, ("train", "validation", "test"), strict=True)
    }
    refuse_few(places)
    return places


def refuse_few(places: dict[str, NDArray[np.int64]]) -> None:
    """Raise KingletError if there are too few images to calibrate on, or none to compare on."""
    total = sum(map(len, places.values()))
    n_calibration = len(places["calibration"])
    if n_calibration < LEAST_CALIBRATION:
        raise KingletError(
            f"--data: of {total} usable images {n_calibration} calibrate the int8 model; at least {LEAST_CALIBRATION} "
            "are needed.",
            f"A fifth of the images calibrate, the others measure: give {LEAST_CALIBRATION * 6} or more.",
        )
    empty = [part for part, of_part in places.items() if not len(of_part)]
    if empty:
        raise KingletError(f"--data: no image is left for {' and '.join(empty)}.", "Give more images.")
