"""Where images come from: one file per kind of source, all opened by one call.

A new kind of source is a new file with a function `(location, images) -> Source` and a line in `SOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kinglet.data.sources.bucket import open_bucket
from kinglet.data.sources.description import open_description
from kinglet.data.sources.folder import open_folder, open_unlabelled
from kinglet.data.sources.records import Content, Record, Source
from kinglet.data.sources.table import open_table
from kinglet.errors import KingletError

__all__ = ["SOURCES", "Content", "Record", "Source", "kind_of", "open_source", "open_unlabelled"]

SOURCES: dict[str, Callable[[str, str], Source]] = {
    "folder": open_folder,
    "table": open_table,
    "bucket": open_bucket,
    "description": open_description,
}

KIND_OF_SUFFIX = {".csv": "table", ".parquet": "table", ".yaml": "description", ".yml": "description"}


def open_source(location: str, images: str) -> Source:
    """Return the opened source at `location`, of whatever kind it is.

    images: the folder in which a table's paths are looked for first.
    Raises KingletError if there is nothing, nothing known, or nothing usable at `location`.
    """
    return SOURCES[kind_of(location)](location, images)


def kind_of(location: str) -> str:
    """Return the key in `SOURCES` for a location.

    Raises KingletError if it is missing or of no known kind.
    """
    if location.startswith("s3://"):
        return "bucket"
    path = Path(location)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise KingletError(f"data.source: {location} cannot be read: {error.strerror}.") from None
    if is_folder:
        return "folder"
    if not exists:
        raise KingletError(
            f"data.source: {location} does not exist (looked in {Path.cwd()}).",
            "Name a folder with one sub-folder per class, a .csv or .parquet table, an s3:// prefix, "
            "or a data set's description (.yaml).",
        )
    if path.suffix.lower() in KIND_OF_SUFFIX:
        return KIND_OF_SUFFIX[path.suffix.lower()]
    raise KingletError(
        f"data.source: {location} is no kind of source that is known.",
        "Name a folder, a .csv or .parquet table, an s3:// prefix, or a data set's description (.yaml).",
    )
