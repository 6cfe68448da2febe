"""A fold of the cross-validation where images have boxes: a detector without it, and what it finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from kinglet.atomic import atomic_path
from kinglet.evidence.detection_matches import Objects
from tasks.artifacts import BOXES, packed_images, read_input_sizes
from tasks.detection_answers import boxed_rows, columns_of, detector_of, find_objects
from tasks.detection_training import (
    SHORT_BUDGET,
    boxed_images,
    detector_recipe,
    fine_tuned_detector,
    refuse_without_boxes,
)
from tasks.fold_run import HELD_OUT, TRAINING, VALIDATION, FoldRun
from tasks.models import read_classes, served
from tasks.progress import progress


def answer_boxes(given: FoldRun) -> None:
    """Train a detector without the fold, and write what it finds in the fold's images.

    Raises KingletError if the images of a part show no object.
    """
    classes, size, fit = read_classes(), read_input_sizes().teacher, given.parameters.data.fit
    images = given.images()
    held_out, training, validation = (
        boxed_images(images, part, size, fit, classes) for part in (HELD_OUT, TRAINING, VALIDATION)
    )
    refuse_without_boxes({"training": training, "validation": validation, "held-out": held_out})
    recipe = detector_recipe(given.settings, size, len(training), given.seed, SHORT_BUDGET)
    checkpoint = given.checkpoint(recipe, [packed_images(size), BOXES])
    with progress(given.title) as report:
        network, history = fine_tuned_detector(
            given.settings, training, validation, len(classes), recipe, checkpoint, report
        )
        detector = detector_of(served(network, size, training.packed.shape[3], classes, given.parameters))
        own = boxed_rows(held_out.rows, [f"image {row}" for row in held_out.rows.tolist()], classes)
        found = find_objects(detector, own, "The detector", lambda done, total: report(done, total, "answers"))
    write_found(given.folder / "predictions.parquet", held_out.rows, found)
    given.keep_facts(
        n=len(held_out), n_training=len(training), n_validation=len(validation), phases=recipe.phases, history=history
    )
    checkpoint.clear()


def write_found(path: Path, rows: NDArray[np.int64], found: Objects) -> None:
    """Write one row for every detection: index, label_index, score, x1, y1, x2, y2. rows: of the images."""
    with atomic_path(path) as temporary:
        table = pa.table({"index": rows[found.images], **columns_of(found)})
        pyarrow.parquet.write_table(table, temporary, compression="zstd")
