"""What detectors find in the held-out images of this run, exactly as it would be served, and how it is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from kinglet.atomic import atomic_path
from kinglet.errors import KingletError
from kinglet.evidence.detection_matches import Objects, objects_of
from kinglet.runtime.bundles import MODEL
from kinglet.runtime.detection import (
    DETECTOR_OUTPUTS,
    SCORED_FROM,
    Detections,
    decode_detections,
    run_detector,
)
from kinglet.runtime.preprocessing import InputTensor, Placement, Preprocessing, placement
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import map_batches, open_session, read_metadata
from tasks.artifacts import BOXES, EVALUATE, INGEST, SPLIT, packed_images
from tasks.image_tables import read_parquet, read_scored
from tasks.scored_models import refuse_other_classes

PREDICTIONS = EVALUATE / "predictions.parquet"
SIDES = ["x1", "y1", "x2", "y2"]
BATCH_SIZE = 16
# Takes a batch as `model_input` makes it, gives logits and boxes.
Compute = Callable[[InputTensor], tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(frozen=True)
class BoxedImages:
    """The images of one split with their true boxes.

    rows: of the packed files, int64 (n,). paths: (n,). sizes: width and height in pixels as shown, int64 (n, 2).
    truths: their boxes, in pixels of the image; `images` there counts these images.
    """

    rows: NDArray[np.int64]
    paths: list[str]
    sizes: NDArray[np.int64]
    truths: Objects

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: NDArray[np.int64]) -> BoxedImages:
        """Return the images at these places, ascending."""
        number = np.full(len(self), -1)
        number[places] = np.arange(len(places))
        images = number[self.truths.images]
        kept = self.truths.take(images >= 0)
        truths = Objects(images[images >= 0], kept.labels, kept.xyxy)
        return BoxedImages(self.rows[places], [self.paths[place] for place in places], self.sizes[places], truths)


@dataclass(frozen=True)
class OpenedDetector:
    """A detector ready to compute, how an image becomes its input, and the names of its classes."""

    compute: Compute
    preprocessing: Preprocessing
    classes: list[str]

    def placements(self, images: BoxedImages) -> list[Placement]:
        """Return where each image lies in the input."""
        size, fit = self.preprocessing.input_size, self.preprocessing.fit
        return [placement(width, height, size, fit) for width, height in images.sizes.tolist()]


def read_boxed(split: str, classes: list[str]) -> BoxedImages:
    """Return the images of a split with their boxes.

    Raises KingletError if there are none, or if none of them has a box.
    """
    table = read_scored(SPLIT / "manifest.parquet", ["index", "path"], split)
    images = boxed_rows(table["index"].to_numpy().astype(np.int64), table["path"].to_pylist(), classes)
    if not len(images.truths):
        raise KingletError(
            f"None of the {len(images)} {split} images has a box, so no model can be scored on them.",
            "Look at artifacts/split/counts.json and at the annotations of these images.",
        )
    return images


def boxed_rows(rows: NDArray[np.int64], paths: list[str], classes: list[str]) -> BoxedImages:
    """Return the images in these rows of the packed files with their boxes, if they have some. paths: of each."""
    facts = pd.read_parquet(INGEST / "manifest.parquet", columns=["index", "width", "height"]).set_index("index")
    boxes = pd.read_parquet(BOXES)
    place = pd.Series(np.arange(len(rows)), index=rows)
    boxes = boxes[boxes["index"].isin(rows) & boxes["label"].isin(classes)]
    number = {label: index for index, label in enumerate(classes)}
    truths = Objects(
        place.loc[boxes["index"]].to_numpy(np.int64),
        np.array([number[label] for label in boxes["label"]], np.int64),
        boxes[SIDES].to_numpy(np.float64),
    )
    sizes = facts.loc[rows, ["width", "height"]].to_numpy(np.int64)
    return BoxedImages(rows, paths, sizes, truths)


def open_detector(folder: Path, classes: list[str]) -> OpenedDetector:
    """Return the detector in a folder on one thread, whose answers do not depend on this machine's processors.

    Raises KingletError if the file is no detector, or was made for other classes.
    """
    file = folder / MODEL
    session = open_session(file, threads=1, outputs=DETECTOR_OUTPUTS)
    opened = detector_of(session)
    refuse_other_classes(file, opened.classes, classes)
    return opened


def detector_of(session: onnxruntime.InferenceSession) -> OpenedDetector:
    """Return the detector of a session."""
    return OpenedDetector(partial(run_detector, session), *read_metadata(session))


def find_objects(
    detector: OpenedDetector, images: BoxedImages, name: str, report: Callable[[float, float], None] | None = None
) -> Objects:
    """Return what a detector finds in the packed images, from the lowest score that is kept for scoring.

    name: what errors call the detector. report: called with the images done and all images.
    Raises KingletError if it answers with numbers that are not finite.
    """
    packed = np.load(packed_images(detector.preprocessing.input_size), mmap_mode="r")
    placements, found = detector.placements(images), list[Detections]()
    outputs = map_batches(
        detector.compute, packed, images.rows, detector.preprocessing, BATCH_SIZE, available_processors()
    )
    for logits, boxes in outputs:
        placed = placements[len(found) : len(found) + len(logits)]
        try:
            found += decode_detections(logits, boxes, placed, score_threshold=SCORED_FROM)
        except ValueError as error:
            raise KingletError(f"{name} cannot be scored: {error}.") from None
        if report:
            report(len(found), len(images))
    return objects_of(found)


def write_predictions(images: dict[str, BoxedImages], found: dict[str, dict[str, Objects]]) -> None:
    """Write one row for every detection. images: by split. found: {model: {split: what it found}}."""
    parts = [
        pa.table(
            {
                "model": pa.array([name] * len(boxes), pa.string()),
                "index": images[split].rows[boxes.images],
                "path": pa.array([images[split].paths[image] for image in boxes.images], pa.string()),
                "split": pa.array([split] * len(boxes), pa.string()),
                **columns_of(boxes),
            }
        )
        for name, of_split in found.items()
        for split, boxes in of_split.items()
    ]
    with atomic_path(PREDICTIONS) as temporary:
        pyarrow.parquet.write_table(pa.concat_tables(parts), temporary, compression="zstd")


def columns_of(boxes: Objects) -> dict[str, NDArray[np.generic]]:
    """Return detections as columns of a table, all but their images."""
    sides = {side: boxes.xyxy[:, column].astype(np.float32) for column, side in enumerate(SIDES)}
    return {"label_index": boxes.labels, "score": np.asarray(boxes.scores, np.float32), **sides}


def read_found(models: list[str], images: BoxedImages, split: str) -> dict[str, Objects]:
    """Return what each of the models found in the images of a split, as `evaluate` kept it.

    Raises KingletError if it was scored on images that the split does not list.
    """
    table = read_parquet(PREDICTIONS, ["model", "index", "label_index", "score", *SIDES], split)
    found = {}
    for name in models:
        own = table.filter(pc.equal(table["model"], name))
        if not np.isin(own["index"].to_numpy(), images.rows).all():
            raise KingletError(
                f"{PREDICTIONS}: {name} was scored on other {split} images than the split lists.", "Run `dvc repro`."
            )
        found[name] = detections_in(own, images.rows)
    return found


def detections_in(table: pa.Table, rows: NDArray[np.int64]) -> Objects:
    """Return the detections of a table with `columns_of` and `index`. rows: of the images that they count."""
    place = pd.Series(np.arange(len(rows)), index=rows)
    return Objects(
        place.loc[table["index"].to_numpy()].to_numpy(np.int64),
        table["label_index"].to_numpy().astype(np.int64),
        np.column_stack([table[side].to_numpy() for side in SIDES]).reshape(-1, 4),
        table["score"].to_numpy(),
    )
