"""What every source yields: plain records, and one way to read the image of a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# What a read returns: the bytes of an image file, or pixels of shape (height, width, channels).
Content = bytes | NDArray[np.uint8]

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Record:
    """One file (or one image of a packed file) that a source holds.

    path: its name in the manifest, relative, with forward slashes, printable. location: what the
    source's `read` needs to find it. label, group, domain, given_split: "" where unknown. problem: why
    the image cannot be used although it may be readable, "" if nothing is known against it. further: what else a
    table says of the image, as (column, value). part: of the decoded image that is meant, as left, top, width and
    height in its pixels as shown; None for all of it.
    """

    path: str
    location: str
    label: str = ""
    group: str = ""
    domain: str = ""
    given_split: str = ""
    problem: str = ""
    further: tuple[tuple[str, str], ...] = ()
    part: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Source:
    """An opened source.

    kind: the key it was chosen by. records: sorted by path. read: content of one record; picklable,
    since images are decoded in other processes; raises OSError for what cannot be read.
    concurrent_reads: how many reads a process should have under way at once (1 for local files).
    channels: 1 or 3 where known beforehand, else 0. left_out: {reason: paths} of what was seen and is
    not part of the data set. notes: sentences the user should see.
    """

    kind: str
    records: list[Record]
    read: Callable[[Record], Content]
    concurrent_reads: int = 1
    channels: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def printable(path: str) -> str:
    """Return the path with bytes that are no UTF-8 written as backslash escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
