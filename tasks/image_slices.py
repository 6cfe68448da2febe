"""What divides the test images into slices: what a person's table says of them, and what was measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow.parquet import ParquetFile

from kinglet.errors import KingletError
from kinglet.evidence.slices import quartile_names
from tasks.artifacts import GIVEN, PROFILE, SPLIT

# What divides the images whatever the manifest says.
MEASURED = ("class", "brightness", "size")
# Of the manifest, those that name an image, or that the other slices repeat.
NO_SLICES = ("index", "path", "label", "label_index", "split", "sha256")


def slice_columns(index: NDArray[np.int64]) -> dict[str, NDArray[np.str_]]:
    """Return what divides these images whatever their classes, in their order: {column: str (n_images,)}.

    index: of each image in the manifest, int64 (n_images,). Every column of the manifest that images may share, and
    quartiles of brightness and size.
    """
    with ParquetFile(SPLIT / "manifest.parquet") as opened:
        names = [name for name in opened.schema_arrow.names if name not in NO_SLICES]
        manifest = opened.read(columns=["index", *names])
    with ParquetFile(PROFILE / "images.parquet") as opened:
        facts = opened.read(columns=["index", "brightness", "width", "height"])
    columns = {}
    rows = rows_of(index, manifest["index"].to_numpy())
    for name in names:
        values = np.array(["" if value is None else str(value) for value in manifest[name].to_pylist()])
        plain = name.removeprefix(GIVEN)
        columns[f"{plain} (given)" if plain in MEASURED else plain] = values[rows]
    rows = rows_of(index, facts["index"].to_numpy())
    brightness, width, height = (facts[name].to_numpy()[rows] for name in ("brightness", "width", "height"))
    columns["brightness"] = quartile_names(brightness, ("darkest", "brightest"))
    columns["size"] = quartile_names(width.astype(np.float64) * height, ("smallest", "largest"))
    return columns


def slices_csv(columns: Sequence[str], by_model: dict[str, list[dict[str, Any]]]) -> str:
    """Return the slices of all models as a table. by_model: each one's slices as rows with these columns."""
    written = io.StringIO()
    writer = csv.DictWriter(written, ["model", *columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"model": name, **row} for name, rows in by_model.items() for row in rows)
    return written.getvalue()


def rows_of(wanted: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each wanted image stands in a table; raises KingletError if one is not there."""
    order = np.argsort(index, kind="stable")
    places = np.searchsorted(index, wanted, sorter=order)
    found = order[np.minimum(places, len(order) - 1)]
    if not np.array_equal(index[found], wanted):
        raise KingletError("The predictions name images that the manifest does not hold.", "Run `dvc repro`.")
    return np.asarray(found)
