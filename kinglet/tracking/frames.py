"""The frames of a sequence, from a video file or from a folder with one image per frame."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from kinglet.errors import KingletError
from kinglet.runtime.decoding import sniff
from kinglet.runtime.predictor import MAX_PIXELS, read_image
from kinglet.runtime.videos import Frame, Video

# What a folder of frames is played at where nobody says it.
USUAL_RATE = 25.0
BYTES_THAT_TELL = 12


class FrameFolder:
    """A folder with one image per frame, in the order of the numbers that their names end with.

    rate: frames per second; knows_rate: whether somebody said so. seconds: of each frame after the first, float64
    (n,). is_even: all are as far apart.
    """

    is_even = True

    def __init__(self, folder: Path, rate: float | None = None) -> None:
        """See which files are frames.

        Raises KingletError if there is none, or if a number is missing between two.
        """
        self.folder, self.knows_rate = folder, rate is not None
        self.rate = USUAL_RATE if rate is None else rate
        self.files = frame_files(folder)
        self.seconds = np.arange(len(self.files)) / self.rate

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        for number in range(1, len(self) + 1):
            yield self.frame(number)

    def frame(self, number: int) -> Frame:
        """Return a frame by its place in the order, from 1; raises KingletError if it cannot be decoded."""
        image = read_image(self.files[number - 1], MAX_PIXELS)
        gray = image.ndim == 2 or image.shape[2] == 1
        return Frame(
            number,
            float(self.seconds[number - 1]),
            np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2) if gray else image,
        )


def open_frames(path: Path, rate: float | None = None) -> Video | FrameFolder:
    """Return the frames of a video file, or of a folder of images. rate: of a folder, frames per second.

    Raises KingletError for what is neither.
    """
    if path.is_dir():
        return FrameFolder(path, rate)
    return Video(path)


def frame_files(folder: Path) -> list[Path]:
    """Return the images in a folder in the order of their frames.

    Raises KingletError if there is none, some names end with a number and others do not, or a number is missing.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and is_image(path))
    if not files:
        raise KingletError(f"{folder} holds no frames.", "Name a folder with one image per frame, or a video file.")
    numbers = [re.search(r"(\d+)$", path.stem) for path in files]
    if not any(numbers):
        return files
    unnumbered = [path for path, number in zip(files, numbers, strict=True) if number is None]
    if unnumbered:
        raise KingletError(f"{folder}: {unnumbered[0].name} has no number at its end, and others have.")
    counted = sorted((int(number[1]), path) for path, number in zip(files, numbers, strict=True) if number)
    for (before, path), (after, follower) in pairwise(counted):
        if after != before + 1:
            what = "have the same number" if after == before else "leave numbers out between them"
            raise KingletError(
                f"{folder}: the frames {path.name} and {follower.name} {what}.",
                "Frames count one by one; tracks would be told of the wrong ones.",
            )
    return [path for _, path in counted]


def is_image(path: Path) -> bool:
    """Return whether a file begins like an image."""
    if path.name.startswith("."):
        return False
    with path.open("rb") as file:
        return bool(sniff(file.read(BYTES_THAT_TELL)))
