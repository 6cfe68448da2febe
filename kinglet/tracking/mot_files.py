"""Files in the form of the MOTChallenge: a line per box, read and written.

`frame, id, left, top, width, height, confidence` and what follows. Frames and pixels count from 1: a box at the left
edge of the image begins at 1. In ground truth the seventh number says whether the box counts (0: it does not). With
eight or nine numbers the eighth is a class, which counts from 1; with ten, the last three are a place in the world,
which is not read.
Source: Milan et al. 2016, "MOT16: A Benchmark for Multi-Object Tracking", table 4; https://motchallenge.net.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kinglet.atomic import write_text
from kinglet.errors import KingletError
from kinglet.tracking.tracks import NO_CLASS, Tracks, tracks_of

COLUMNS = "frame, id, left, top, width, height, confidence, with or without class and visibility"
FEWEST_COLUMNS, MOST_COLUMNS = 7, 10
# With so many numbers, the eighth is a class and no place in the world.
COLUMNS_WITH_CLASS = (8, 9)
# What a detection has in place of an identity.
NO_IDENTITY = -1
# Pixels count from 1 in the files, and continuously from 0 here.
FIRST_PIXEL = 1.0


class Line(NamedTuple):
    """One box of a file, in the file's own numbers."""

    number: int
    frame: int
    identity: int
    box: tuple[float, float, float, float]
    confidence: float
    label: int


def read_truth(file: Path) -> Tracks:
    """Return the boxes of a ground truth that count.

    Raises KingletError with file and line for what is no such file, and for one without any box that counts.
    """
    lines = [line for line in read_lines(file) if line.confidence != 0]
    if not lines:
        raise KingletError(f"{file} holds no box that counts, so no tracks can be held against it.")
    found = tracks_of_lines(file, lines)
    return Tracks(found.frames, found.ids, found.xyxy, found.labels, np.ones(len(found)))


def read_tracks(file: Path) -> Tracks:
    """Return the tracks that somebody found; none where the file is empty.

    Raises KingletError with file and line for what is no such file.
    """
    return tracks_of_lines(file, list(read_lines(file)))


def read_detections(file: Path) -> Tracks:
    """Return boxes without identities, as detectors find them: `ids` counts the boxes of a frame from 0.

    Raises KingletError with file and line for what is no such file.
    """
    lines = sorted(read_lines(file, with_identities=False), key=lambda line: line.frame)
    frames = np.array([line.frame for line in lines], np.int64)
    first = np.searchsorted(frames, frames)
    return columns_of(lines, np.arange(len(lines)) - first)


def tracks_of_lines(file: Path, lines: list[Line]) -> Tracks:
    """Return lines as tracks; raises KingletError with both lines for an id that is twice in a frame."""
    seen: dict[tuple[int, int], int] = {}
    for line in lines:
        key = (line.frame, line.identity)
        if key in seen:
            raise KingletError(
                f"{file}, line {line.number}: id {line.identity} is in frame {line.frame} twice, see line {seen[key]}.",
                "An object is in one place at a time: give one of the two boxes another id.",
            )
        seen[key] = line.number
    return columns_of(lines, np.array([line.identity for line in lines], np.int64))


def columns_of(lines: list[Line], ids: np.ndarray) -> Tracks:
    """Return lines with these identities as tracks, in pixels that count from 0."""
    boxes = np.array([line.box for line in lines], np.float64).reshape(-1, 4)
    corner = boxes[:, :2] - FIRST_PIXEL
    return tracks_of(
        [line.frame for line in lines],
        ids,
        np.concatenate([corner, corner + boxes[:, 2:]], axis=1),
        [line.label for line in lines],
        [line.confidence for line in lines],
    )


def read_lines(file: Path, *, with_identities: bool = True) -> Iterator[Line]:
    """Yield the boxes of a file in its own order; raises KingletError with file and line for what is none."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise KingletError(
            f"{file} does not exist.", "Name a file of tracks in the form of the MOTChallenge."
        ) from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise KingletError(f"{file} is no text file of tracks.", f"A line holds {COLUMNS}.") from None
    for number, words in enumerate(text.splitlines(), start=1):
        if words.strip():
            try:
                yield line_of(words.split(","), number, with_identities=with_identities)
            except ValueError as error:
                raise KingletError(f"{file}, line {number}: {error}.", f"A line holds {COLUMNS}.") from None


def line_of(words: list[str], number: int, *, with_identities: bool) -> Line:
    """Return the box that the words of a line say; raises ValueError in words for what is none."""
    if not FEWEST_COLUMNS <= len(words) <= MOST_COLUMNS:
        raise ValueError(f"it has {len(words)} columns, not {FEWEST_COLUMNS} to {MOST_COLUMNS}")
    frame, identity = whole(words[0], "frame"), whole(words[1], "id")
    left, top, width, height, confidence = (
        finite(word, name)
        for word, name in zip(words[2:7], ("left", "top", "width", "height", "confidence"), strict=True)
    )
    if frame < 1:
        raise ValueError(f"its frame is {frame}, and frames count from 1")
    if with_identities and identity < 0:
        raise ValueError(f"its id is {identity}, which is how detections are told that have none")
    if width <= 0 or height <= 0:
        raise ValueError(f"its box has no area: {width:g} x {height:g}")
    label = NO_CLASS
    if len(words) in COLUMNS_WITH_CLASS:
        label = whole(words[7], "class")
        if label < 1:
            label = NO_CLASS
    return Line(number, frame, identity, (left, top, width, height), confidence, label)


def whole(word: str, name: str) -> int:
    """Return a whole number; raises ValueError in words."""
    number = finite(word, name)
    if number != int(number):
        raise ValueError(f"its {name} is {word.strip()}, no whole number")
    return int(number)


def finite(word: str, name: str) -> float:
    """Return a finite number; raises ValueError in words."""
    try:
        number = float(word)
    except ValueError:
        raise ValueError(f"its {name} is {word.strip()[:40]!r}, no number") from None
    if not math.isfinite(number):
        raise ValueError(f"its {name} is {word.strip()}, no finite number")
    return number


def write_tracks(file: Path, tracks: Tracks) -> None:
    """Write tracks as a result for the MOTChallenge; classes, where there are any, as the eighth of nine numbers.

    The file is whole or absent. Reading it again gives the same tracks, coordinates and scores to 4 digits.
    """
    with_classes = bool((tracks.labels != NO_CLASS).any())
    lines = [
        f"{frame},{identity},{left + FIRST_PIXEL:.4f},{top + FIRST_PIXEL:.4f},{right - left:.4f},{bottom - top:.4f},"
        f"{score:.4f},{f'{label},-1' if with_classes else '-1,-1,-1'}\n"
        for frame, identity, (left, top, right, bottom), score, label in zip(
            tracks.frames.tolist(),
            tracks.ids.tolist(),
            tracks.xyxy.tolist(),
            tracks.scores.tolist(),
            tracks.labels.tolist(),
            strict=True,
        )
    ]
    write_text(file, "".join(lines))
