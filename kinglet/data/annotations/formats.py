"""Which known format of annotations lies in a folder: boxes, masks, tracks, clips, or none of them.

A new format is a function `(root, paths) -> problem` and a line in `FORMATS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kinglet.data.annotations.mask_pairs import lies_among_masks, pair_masks
from kinglet.data.sources.layout import has_image_suffix
from kinglet.runtime.videos import SUFFIXES as VIDEO_SUFFIXES

# One line of a YOLO file: the class's number, then a box (4 numbers) or a polygon (6 or more), from 0 to 1.
YOLO_LINE = re.compile(r"\d+(\s+[01]?\.?\d+(e-\d+)?){4,}\s*")
# A few files tell what all are; the rest need not be opened.
FILES_LOOKED_AT = 20


@dataclass(frozen=True)
class AnnotationFormat:
    """What annotations are called, what they are for (a problem of params.yaml), and one of the files."""

    name: str
    problem: str
    example: str


def annotation_format(root: Path, paths: list[str]) -> AnnotationFormat | None:
    """Return the format of the annotations below `root`; None where the folders alone say what is on the images.

    paths: of all files below `root`, relative, with forward slashes.
    """
    for name, recognise in FORMATS.items():
        found = recognise(root, sorted(paths))
        if found:
            problem, example = found
            return AnnotationFormat(name, problem, example)
    return None


def mot_challenge(_root: Path, paths: list[str]) -> tuple[str, str] | None:
    """Tracks: a folder gt with gt.txt beside the frames of a sequence."""
    return next((("tracking", path) for path in paths if path.endswith("gt/gt.txt")), None)


def videos(_root: Path, paths: list[str]) -> tuple[str, str] | None:
    """Clips: video files and no image."""
    if any(map(has_image_suffix, paths)):
        return None
    return next((("video", path) for path in paths if path.lower().endswith(VIDEO_SUFFIXES)), None)


def coco_json(root: Path, paths: list[str]) -> tuple[str, str] | None:
    """Boxes or polygons in one JSON file: lists of images, annotations and categories."""
    for path in [path for path in paths if path.lower().endswith(".json")][:FILES_LOOKED_AT]:
        text = text_of(root / path)
        if all(f'"{key}"' in text for key in ("images", "annotations", "categories")):
            return ("detection" if '"bbox"' in text else "segmentation"), path
    return None


def pascal_voc(root: Path, paths: list[str]) -> tuple[str, str] | None:
    """Boxes in one XML file per image."""
    for path in [path for path in paths if path.lower().endswith(".xml")][:FILES_LOOKED_AT]:
        text = text_of(root / path)
        if "<annotation" in text and "<bndbox>" in text:
            return "detection", path
    return None


def yolo(root: Path, paths: list[str]) -> tuple[str, str] | None:
    """Boxes in one text file per image, named like it."""
    stems = {PurePosixPath(path).stem for path in paths if has_image_suffix(path)}
    texts = [path for path in paths if path.lower().endswith(".txt") and PurePosixPath(path).stem in stems]
    for path in texts[:FILES_LOOKED_AT]:
        lines = [line for line in text_of(root / path).splitlines() if line.strip()]
        if lines and all(YOLO_LINE.fullmatch(line) for line in lines):
            return ("detection" if all(len(line.split()) == 5 for line in lines) else "segmentation"), path
    return None


def masks(_root: Path, paths: list[str]) -> tuple[str, str] | None:
    """Masks: files that are called like images, in a folder of masks, or beside most images with an ending."""
    pairs = pair_masks(paths)
    mask = next(iter(pairs.masks.values()), None)
    if mask is None or not (lies_among_masks(mask) or len(pairs.masks) >= len(pairs.without_mask)):
        return None
    return "segmentation", mask


def text_of(path: Path) -> str:
    """Return a file's text; "" for one that cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


FORMATS: dict[str, Callable[[Path, list[str]], tuple[str, str] | None]] = {
    "MOTChallenge": mot_challenge,
    "video files": videos,
    "COCO JSON": coco_json,
    "Pascal VOC XML": pascal_voc,
    "YOLO text": yolo,
    "masks": masks,
}
