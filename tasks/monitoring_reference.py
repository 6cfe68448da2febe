"""What a bundle carries for monitoring: statistics of the training images, and the model's answers to held-out ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow.parquet import ParquetFile

from kinglet.runtime.image_statistics import PIXEL_STATISTICS
from kinglet.runtime.sketches import SIZES, Reference, input_statistics, make_reference
from tasks.artifacts import EVALUATE, PROFILE, SPLIT, ModelCard, packed_images
from tasks.image_tables import read_parquet

HELD_OUT = ("validation", "test")
IMAGES_AT_ONCE = 512


def reference_of(card: ModelCard) -> Reference:
    """Return the reference of a model: the server's images and answers are compared with it.

    Images are measured as the model sees them, as the server does.
    """
    rows = read_parquet(SPLIT / "manifest.parquet", ["index"], "train")["index"].to_numpy()
    columns = {**statistics_of(np.load(packed_images(card.input_size), mmap_mode="r"), rows), **sizes_of(rows)}
    tables = {
        split: read_parquet(EVALUATE / "predictions.parquet", ["model", "label", "probabilities"], split)
        for split in HELD_OUT
    }
    own = {split: table.filter(pc.equal(table["model"], card.name)) for split, table in tables.items()}
    table = pa.concat_tables(own.values())
    flat = table["probabilities"].combine_chunks().flatten().to_numpy()
    is_test = np.repeat([split == "test" for split in HELD_OUT], [len(part) for part in own.values()])
    return make_reference(
        columns,
        flat.reshape(-1, len(card.classes)),
        table["label"].to_numpy().astype(np.int64),
        is_test,
        card.classes,
    )


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
