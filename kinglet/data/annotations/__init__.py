"""Data sets whose images have boxes: one file per format, all opened by one call.

A new format is a file with a function `(root, paths) -> Annotations`, a line in `READERS`, and one in
`formats.FORMATS` by which it is recognised.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kinglet.data.annotations.boxes import AnnotatedImage, Annotations, Box, Finding
from kinglet.data.annotations.coco import read_coco
from kinglet.data.annotations.formats import AnnotationFormat, annotation_format
from kinglet.data.annotations.mot import FORMAT, read_mot
from kinglet.data.annotations.voc import read_voc
from kinglet.data.annotations.yolo import read_yolo
from kinglet.errors import KingletError

__all__ = [
    "READERS",
    "AnnotatedImage",
    "AnnotationFormat",
    "Annotations",
    "Box",
    "Finding",
    "annotation_format",
    "read_annotations",
]

READERS: dict[str, Callable[[Path, list[str]], Annotations]] = {
    "COCO JSON": read_coco,
    "Pascal VOC XML": read_voc,
    "YOLO text": read_yolo,
    FORMAT: read_mot,
}


def read_annotations(root: Path, paths: list[str], name: str) -> Annotations:
    """Return the data set for detection below `root`.

    paths: of all its files, relative, with forward slashes. name: a key of `READERS`.
    Raises KingletError if it cannot be read, or no image of it is left.
    """
    found = READERS[name](root, paths)
    if not found.images:
        why = f": {found.dropped[0].place}: {found.dropped[0].reason}" if found.dropped else ""
        raise KingletError(f"{root} ({name}) holds no image that can be used{why}.")
    return found
