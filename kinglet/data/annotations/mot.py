"""Boxes of sequences in the form of the MOTChallenge, every frame an image of the sequence's group.

A frame of a video has the video's path and its number behind it, `SEQUENCE/film.mp4#000012`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from kinglet.data.annotations.boxes import AnnotatedImage, Annotations, Box, Findings, usable_box
from kinglet.data.annotations.image_files import ImageFiles, UnusableImageError, split_in
from kinglet.data.sources.folder import read_file
from kinglet.data.sources.records import Content, Record
from kinglet.errors import KingletError
from kinglet.runtime.videos import Video
from kinglet.tracking.frames import FrameFolder
from kinglet.tracking.mot_files import read_truth
from kinglet.tracking.sequences import Sequence, find_sequences
from kinglet.tracking.tracks import Tracks

FORMAT = "MOTChallenge"
BEFORE_NUMBER = "#"


@dataclass(frozen=True)
class SequenceFrame:
    """One frame of a sequence. path: what its image is called. number: from 1. seconds: after the first frame."""

    path: str
    sequence: str
    number: int
    seconds: float


def read_mot(root: Path, paths: list[str]) -> Annotations:
    """Return the frames of all sequences below `root` as images with boxes that have identities.

    A box that reaches over the edge of its frame is cut there, one outside is left out.
    Raises KingletError for files of tracks that cannot be read, and for boxes in frames that do not exist.
    """
    files, findings, images = ImageFiles(root, paths), Findings(), []
    labels: set[str] = set()
    for sequence in find_sequences(root):
        truth, frames = read_truth(sequence.truth), sequence.open()
        if int(truth.frames[-1]) > len(frames):
            raise KingletError(
                f"{sequence.truth} has boxes in frame {truth.frames[-1]}; {sequence.frames} ends with {len(frames)}.",
                "Bring the missing frames, or take the boxes out.",
            )
        shape = frames.frame(1).image.shape
        for frame in frames_of(sequence, frames, root):
            try:
                size = files.size(frame.path).shown if isinstance(frames, FrameFolder) else (shape[1], shape[0])
            except UnusableImageError as error:
                raise KingletError(f"{sequence.frames}, frame {frame.number}: {error}.") from None
            boxes = boxes_in(frame, truth, sequence, size, findings)
            labels.update(box.label for box in boxes)
            split = split_in(frame.path)
            images.append(AnnotatedImage(frame.path, size[0], size[1], tuple(boxes), split, frame.sequence))
    images.sort(key=lambda image: image.path)
    return Annotations(FORMAT, tuple(images), tuple(sorted(labels)), tuple(findings.dropped), tuple(findings.changed))


def boxes_in(
    frame: SequenceFrame, truth: Tracks, sequence: Sequence, size: tuple[int, int], findings: Findings
) -> list[Box]:
    """Return the boxes of one frame, inside it."""
    rows = slice(*np.searchsorted(truth.frames, [frame.number, frame.number + 1]))
    found = []
    for identity, xyxy, label in zip(
        truth.ids[rows].tolist(), truth.xyxy[rows].tolist(), truth.labels[rows].tolist(), strict=True
    ):
        place = f"{sequence.name}/gt/gt.txt, frame {frame.number}, id {identity}"
        box = usable_box(xyxy, sequence.class_name(label), size, place, findings)
        if box:
            found.append(replace(box, identity=identity))
    return found


def sequence_frames(root: Path) -> list[SequenceFrame]:
    """Return the frames of all sequences below a folder, by sequence and number."""
    return [frame for sequence in find_sequences(root) for frame in frames_of(sequence, sequence.open(), root)]


def frames_of(sequence: Sequence, frames: Video | FrameFolder, root: Path) -> list[SequenceFrame]:
    """Return the frames of one sequence, by number."""
    if isinstance(frames, FrameFolder):
        names = [file.relative_to(root).as_posix() for file in frames.files]
    else:
        video = frames.file.relative_to(root).as_posix()
        names = [f"{video}{BEFORE_NUMBER}{number:06d}" for number in range(1, len(frames) + 1)]
    seconds = frames.seconds.tolist()
    return [
        SequenceFrame(name, sequence.name, number, seconds[number - 1]) for number, name in enumerate(names, start=1)
    ]


def read_frame(root: str, record: Record) -> Content:
    """Return the bytes of a frame's file, or its pixels where it is one of a video."""
    path, mark, number = record.location.rpartition(BEFORE_NUMBER)
    if mark and number.isdigit() and not Path(root, record.location).exists():
        return opened_video(Path(root, path)).frame(int(number)).image
    return read_file(root, record)


@lru_cache(maxsize=1)
def opened_video(file: Path) -> Video:
    """Return a video, which stays open for the next of its frames."""
    return Video(file)
