"""What a bundle carries for monitoring: statistics of the training images, and the model's answers to held-out ones.

Images are measured as the model sees them, as the server does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow.parquet import ParquetFile

from kinglet.runtime import bundles
from kinglet.runtime.detection import Detections
from kinglet.runtime.image_statistics import PIXEL_STATISTICS
from kinglet.runtime.preprocessing import model_input
from kinglet.runtime.sketches import SIZES, Reference, input_statistics, make_reference, reference_of
from kinglet.runtime.thresholds import Thresholds
from kinglet.runtime.watched_answers import (
    Values,
    class_answers,
    mask_answers,
    mask_facts,
    middle_of,
    object_answers,
    one_each,
)
from tasks.artifacts import CLIPS, EVALUATE, PROFILE, SPLIT, ModelCard, packed_clips, packed_images
from tasks.detection_answers import SIDES
from tasks.image_tables import read_parquet
from tasks.scored_models import HELD_OUT
from tasks.segmentation_answers import open_segmenter
from tasks.true_masks import MaskedImages, scored_images

IMAGES_AT_ONCE = 512
# Of what is computed anew: logits of every pixel are held until they are counted.
MASKS_AT_ONCE = 4


def monitoring_reference(chosen: Path, card: ModelCard) -> Reference:
    """Return the reference of the model in the file `chosen`: the server's images and answers are compared with it."""
    return REFERENCES[card.problem](chosen, card)


def reference_of_classifier(_: Path, card: ModelCard) -> Reference:
    """Return the reference of a classifier."""
    rows = rows_in("train")
    columns = inputs_in(np.load(packed_images(card.input_size), mmap_mode="r"), rows)
    table, is_test = answers_of(card)
    return make_reference(columns, probabilities_in(table, card), labels_in(table), is_test, card.classes)


def reference_of_clip_network(_: Path, card: ModelCard) -> Reference:
    """Return the reference of a network over clips; the clips of a video together count as much as one video."""
    videos = pd.read_parquet(CLIPS, columns=["index", "video"]).set_index("index")["video"]

    def by_video(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the order in which the clips of each video follow each other, and the number of each one's video."""
        numbers = pd.factorize(videos.reindex(rows))[0].astype(np.int64)
        order = np.argsort(numbers, kind="stable")
        return order, numbers[order]

    rows = rows_in("train")
    order, of_video = by_video(rows)
    packed = np.load(packed_clips(card.input_size), mmap_mode="r")
    columns = inputs_in(packed[:, middle_of(packed.shape[1])], rows[order])
    inputs = {name: Values(values, of_video) for name, values in columns.items()}
    table, is_test = answers_of(card)
    probabilities = probabilities_in(table, card)
    is_right = (probabilities.argmax(axis=1) == labels_in(table))[is_test]
    order, of_video = by_video(table["index"].to_numpy())
    answers = class_answers(probabilities[order], of_video)
    return reference_of(bundles.VIDEO, inputs, answers, card.classes, (int(is_right.sum()), len(is_right)))


def reference_of_detector(_: Path, card: ModelCard) -> Reference:
    """Return the reference of a detector: of what it found in held-out images, the objects that are shown."""
    rows = held_out_rows()
    table = answers_of(card)[0].to_pandas()
    table = table[table["score"] >= Thresholds().score]
    by_image = dict(iter(table.groupby("index")))
    found = [detections_in(by_image.get(row, table.iloc[:0])) for row in rows.tolist()]
    width, height = (sizes_of(rows)[name].astype(np.int64).tolist() for name in SIZES)
    answers = object_answers(found, list(zip(width, height, strict=True)), len(card.classes))
    columns = inputs_in(np.load(packed_images(card.input_size), mmap_mode="r"), rows_in("train"))
    inputs = {name: one_each(values) for name, values in columns.items()}
    return reference_of(bundles.DETECTION, inputs, answers, card.classes)


def reference_of_segmenter(chosen: Path, card: ModelCard) -> Reference:
    """Return the reference of a segmenter; it answers the held-out images once more, as masks tell no confidence."""
    segmenter = open_segmenter(chosen.parent, card.classes)
    packed = np.load(packed_images(card.input_size), mmap_mode="r")
    held_out = images_in_order(held_out_rows())
    facts = []
    for start in range(0, len(held_out), MASKS_AT_ONCE):
        part = held_out.take(np.arange(start, min(start + MASKS_AT_ONCE, len(held_out))))
        logits = segmenter.compute(model_input(np.asarray(packed[part.rows]), segmenter.preprocessing))
        facts.append(mask_facts(logits, segmenter.placements(part)))
    confidences, shares = (np.concatenate(values) for values in zip(*facts, strict=True))
    answers = mask_answers(confidences, shares, held_out.wholes, card.classes)
    training = images_in_order(rows_in("train"))
    inputs = {name: Values(values, training.wholes) for name, values in inputs_in(packed, training.rows).items()}
    return reference_of(bundles.SEGMENTATION, inputs, answers, card.classes)


def images_in_order(rows: NDArray[np.int64]) -> MaskedImages:
    """Return the images in these rows, the tiles of a whole one after the other."""
    found = scored_images(rows, [""] * len(rows))
    return found.take(np.argsort(found.wholes, kind="stable"))


def rows_in(split: str) -> NDArray[np.int64]:
    """Return the rows of the packed files that hold the images of a split."""
    return read_parquet(SPLIT / "manifest.parquet", ["index"], split)["index"].to_numpy().astype(np.int64)


def held_out_rows() -> NDArray[np.int64]:
    """Return the rows of all images that models were scored on."""
    return np.concatenate([rows_in(split) for split in HELD_OUT])


def answers_of(card: ModelCard) -> tuple[pa.Table, NDArray[np.bool_]]:
    """Return what `evaluate` kept of a model's answers to held-out images, and which rows are of test images."""
    with ParquetFile(EVALUATE / "predictions.parquet") as opened:
        table = opened.read()
    own = table.filter(pc.equal(table["model"], card.name))
    parts = [own.filter(pc.equal(own["split"], split)) for split in HELD_OUT]
    is_test = np.repeat([split == "test" for split in HELD_OUT], [len(part) for part in parts])
    return pa.concat_tables(parts), is_test


def probabilities_in(table: pa.Table, card: ModelCard) -> NDArray[np.float32]:
    """Return the probabilities of a classifier's answers, float32 (n, n_classes)."""
    flat: NDArray[np.float32] = table["probabilities"].combine_chunks().flatten().to_numpy()
    return flat.reshape(-1, len(card.classes))


def labels_in(table: pa.Table) -> NDArray[np.int64]:
    """Return the true classes of a classifier's answers."""
    return np.asarray(table["label"].to_numpy().astype(np.int64))


def detections_in(rows: pd.DataFrame) -> Detections:
    """Return the objects in the rows of one image."""
    xyxy, labels = rows[SIDES].to_numpy(np.float32), rows["label_index"].to_numpy(np.int64)
    return Detections(xyxy, labels, rows["score"].to_numpy(np.float32))


def inputs_in(packed: NDArray[np.uint8], rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return the values of each of `sketches.INPUTS` for the images in these rows: {name: float64 (n_rows,)}."""
    return {**statistics_of(packed, rows), **sizes_of(rows)}


def statistics_of(packed: NDArray[np.uint8], rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return the statistics of packed images: {name: float64 (n_rows,)}; a bounded number of them is in memory."""
    parts = [
        input_statistics(np.asarray(packed[rows[start : start + IMAGES_AT_ONCE]]))
        for start in range(0, len(rows), IMAGES_AT_ONCE)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in PIXEL_STATISTICS}


def sizes_of(rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return width and height in pixels of the images in these rows, as they came."""
    with ParquetFile(PROFILE / "images.parquet") as opened:
        table = opened.read(columns=["index", *SIZES])
    index = table["index"].to_numpy()
    place = np.searchsorted(index, rows, sorter=(order := np.argsort(index)))
    return {name: table[name].to_numpy()[order[place]].astype(np.float64) for name in SIZES}


# What makes the reference of a problem's model.
REFERENCES: dict[str, Callable[[Path, ModelCard], Reference]] = {
    bundles.CLASSIFICATION: reference_of_classifier,
    bundles.DETECTION: reference_of_detector,
    bundles.SEGMENTATION: reference_of_segmenter,
    bundles.VIDEO: reference_of_clip_network,
}
