"""`kinglet clips generate`: a set of made videos of real pictures that move, to try the way of videos without any."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.atomic import atomic_folder, write_json
from kinglet.data.clips.moving_pictures import CLASSES, FEWEST_FRAMES, MOST_FRAMES, clip_frames, motion_of
from kinglet.data.packing import examine, read_or_error
from kinglet.data.sources import Source, kind_of, open_source, open_unlabelled
from kinglet.data.splits import unit_hash
from kinglet.errors import KingletError
from kinglet.tracking.pictures import VideoWriter
from tasks.artifacts import GENERATED
from tasks.labelled_images import MAX_PIXELS
from tasks.progress import progress
from tasks.result_folder import ResultFolder

MADE_BY = "kinglet clips generate"


@dataclass(frozen=True)
class Request:
    """What somebody wants to have made. per_class: videos of each class. edge: of the frames, in pixels, even."""

    images: str
    output: Path
    per_class: int = 100
    edge: int = 64
    rate: float = 12.0
    seed: int = 0
    overwrite: bool = False


def run(request: Request) -> dict[str, Any]:
    """Write OUT/CLASS/NUMBER.mp4 and the file that says that they are made; return what that says.

    Every picture is in one video only. The same request gives the same bytes.
    Raises KingletError, and leaves the folder as it was, if the pictures are too few or cannot be read.
    """
    target = ResultFolder(request.output, "OUT", MADE_BY, GENERATED)
    target.refuse_what_must_stay([Path(request.images)], overwrite=request.overwrite)
    source = open_pictures(request.images)
    n_videos = request.per_class * len(CLASSES)
    pictures = usable_pictures(source, request.seed)
    digits = len(str(request.per_class - 1))
    with atomic_folder(request.output) as folder, progress("clips") as report:
        for label in CLASSES:
            (folder / label).mkdir()
        for number in range(n_videos):
            picture = next(pictures, None)
            if picture is None:
                raise KingletError(
                    f"IMAGES: {request.images} has {number} pictures that can be read, and {n_videos} videos need one "
                    "each.",
                    f"Make at most {number // len(CLASSES)} of each class (--per-class), or name more pictures.",
                )
            label = CLASSES[number % len(CLASSES)]
            name = f"{number // len(CLASSES):0{digits}d}.mp4"
            write_clip(folder / label / name, picture, label, request, number)
            report(number + 1, n_videos, "videos")
        made = description_of(request)
        write_json(folder / GENERATED, made)
    return made


def open_pictures(location: str) -> Source:
    """Return the source of the pictures; raises KingletError if there are none."""
    try:
        # Of a folder any picture will do: what it shows is not asked.
        if kind_of(location) == "folder":
            return open_unlabelled(location)
        return open_source(location, str(Path(location).parent))
    except KingletError as error:
        raise KingletError(error.message.replace("data.source", "IMAGES"), error.hint) from None


def usable_pictures(source: Source, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the pictures that can be read, uint8 (height, width, 1 or 3), in an order that paths and seed give."""
    for record in sorted(source.records, key=lambda record: unit_hash(record.path, seed)):
        facts, pixels = examine(read_or_error(source.read, record), MAX_PIXELS)
        if pixels is None:
            print(f"note: {record.path} is left out: {facts['problem']}", file=sys.stderr)
        else:
            yield pixels


def write_clip(file: Path, picture: NDArray[np.uint8], label: str, request: Request, number: int) -> None:
    """Write one video. number: of the video in the set, which its random numbers follow from."""
    random = np.random.default_rng([request.seed, number])
    motion = motion_of(label, request.edge, random)
    with VideoWriter(file, request.rate) as video:
        for place, frame in enumerate(clip_frames(picture, motion, request.edge, random)):
            video.write(frame, place / request.rate)


def description_of(request: Request) -> dict[str, Any]:
    """Return what the set says of itself: that it is made, from what, and how."""
    return {
        "made_by": MADE_BY,
        "images": request.images,
        "classes": list(CLASSES),
        "videos": request.per_class * len(CLASSES),
        "frames": [FEWEST_FRAMES, MOST_FRAMES],
        "frames_per_second": request.rate,
        "size": request.edge,
        "seed": request.seed,
    }
