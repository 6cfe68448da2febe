"""Reading the tables of images that steps leave for each other, one split at a time."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile

from kinglet.errors import KingletError


def read_parquet(path: Path, columns: list[str], split: str) -> pa.Table:
    """Return these columns of the rows whose `split` is this one, in the order of the file."""
    # Not read_table, which starts pyarrow.dataset and its pool of threads for nothing.
    with ParquetFile(path) as opened:
        table = opened.read(columns=[*columns, "split"])
    return table.filter(pc.equal(table["split"], split)).select(columns)


def read_scored(path: Path, columns: list[str], split: str) -> pa.Table:
    """Return the same of a split that models are scored on; raises KingletError if it has no rows."""
    table = read_parquet(path, columns, split)
    if not len(table):
        raise KingletError(
            f"The {split} split has no images, so no model can be scored on it.", f"Raise split.{split} in params.yaml."
        )
    return table
