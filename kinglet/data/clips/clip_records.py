"""Clips as a source yields them: which frames of which video, and one way to read the middle one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinglet.data.clips.video_files import VideoPart, is_video_name
from kinglet.data.sources.records import Content, Record
from kinglet.errors import KingletError
from kinglet.runtime.cutting import Cutting, Seconds, cut
from kinglet.runtime.videos import ROUNDING_SECONDS, Video


@dataclass(frozen=True)
class ClipRecord(Record):
    """A clip. path: of the video, with # and a number where several are cut from it. location: the video's file.

    video: its path in the data set. frame_numbers: in the video, from 1, ascending. seconds: of each after the video's
    first frame. A clip with a problem has neither.
    """

    video: str = ""
    frame_numbers: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()


@dataclass(frozen=True)
class SeenVideo:
    """What was seen of a video without decoding it: the times of its frames, its size as stored, or why neither."""

    seconds: Seconds
    size: tuple[int, int] = (0, 0)
    problem: str = ""


def see(file: str) -> SeenVideo:
    """Return when the frames of a video are shown, float64 (n,), in seconds after the first."""
    if not is_video_name(file):
        return SeenVideo(np.empty(0), problem="not a video")
    try:
        video = Video(Path(file))
    except KingletError as error:
        return SeenVideo(np.empty(0), problem=of_video(error, file))
    return SeenVideo(video.seconds, video.stored_size)


def see_all(files: Sequence[str]) -> list[SeenVideo]:
    """Return what is seen of each of these files."""
    return [see(file) for file in files]


def of_video(error: KingletError, file: str) -> str:
    """Return what an error says of a video as a clause, without the file's name and the full stop."""
    said = error.message.removesuffix(".")
    return f"it {said.removeprefix(f'{file} ')}" if said.startswith(f"{file} ") else said.removeprefix(f"{file}: ")


def frames_of(part: VideoPart, seconds: Seconds) -> slice:
    """Return which frames of a video, whose times these are, lie in a part of it."""
    first = int(np.searchsorted(seconds, part.start - ROUNDING_SECONDS))
    end = len(seconds)
    if part.end is not None:
        # What is shown at the end belongs to what comes then.
        end = int(np.searchsorted(seconds, part.end - ROUNDING_SECONDS))
    return slice(first, max(first, end))


def clip_records(parts: Sequence[VideoPart], seen: Sequence[SeenVideo], cutting: Cutting) -> list[ClipRecord]:
    """Return the clips of all videos, in the order of `parts`; one that says why for a video that gives none.

    seen: of the video of each part.
    """
    found: list[tuple[VideoPart, list[NDArray[np.int64]], str]] = []
    for part, video in zip(parts, seen, strict=True):
        if video.problem:
            found.append((part, [], video.problem))
            continue
        lies = frames_of(part, video.seconds)
        clips = [places + lies.start for places in cut(video.seconds[lies], cutting)]
        found.append((part, clips, "" if clips else too_short(part, video.seconds[lies], cutting)))
    # Clips of one video are told apart by a number, also where they are of different parts of it.
    count = Counter[str]()
    for part, clips, _ in found:
        count[part.record.path] += max(1, len(clips))
    numbers = Counter[str]()
    records = []
    for (part, clips, problem), video in zip(found, seen, strict=True):
        for places in clips or [np.empty(0, np.int64)]:
            path = part.record.path
            numbers[path] += 1
            name = f"{path}#{numbers[path]}" if count[path] > 1 else path
            seconds = tuple(round(float(value), 6) for value in video.seconds[places])
            records.append(clip_of(part.record, name, tuple((places + 1).tolist()), seconds, problem))
    return records


def clip_of(
    record: Record, name: str, frame_numbers: tuple[int, ...], seconds: tuple[float, ...], problem: str
) -> ClipRecord:
    """Return the record of a clip of this name, of a video whose record is given."""
    given = {field.name: getattr(record, field.name) for field in fields(Record)}
    return ClipRecord(
        **{**given, "path": name, "problem": problem},
        video=record.path,
        frame_numbers=frame_numbers,
        seconds=seconds,
    )


def too_short(part: VideoPart, seconds: Seconds, cutting: Cutting) -> str:
    """Return in words that a video, or the part of it that has a class, has no room for a clip."""
    what = "it" if part.start == 0.0 and part.end is None else f"its part from {part.start:g} s on"
    length = float(seconds[-1] - seconds[0]) if len(seconds) else 0.0
    frames = f"{len(seconds)} frame{'' if len(seconds) == 1 else 's'}"
    return (
        f"shorter than a clip: {what} has {frames} in {length:.2f} s, and a clip takes {cutting.seconds:.2f} s "
        f"({cutting.frames} frames, {cutting.rate:.4g} a second)"
    )


def read_middle(record: Record) -> Content:
    """Return the middle frame of a clip, uint8 (height, width, 3); raises OSError if it cannot be read."""
    assert isinstance(record, ClipRecord)
    if record.problem:
        raise OSError(record.problem)
    try:
        return Video(Path(record.location)).frame(middle_of(record.frame_numbers)).image
    except KingletError as error:
        raise OSError(of_video(error, record.location)) from None


def middle_of(frame_numbers: Sequence[int]) -> int:
    """Return the number of the middle frame, the later one of an even number."""
    return frame_numbers[len(frame_numbers) // 2]


def frames_in(video: Video, record: ClipRecord) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a clip, uint8 (height, width, 3); raises KingletError for one that cannot be decoded."""
    for number in record.frame_numbers:
        yield video.frame(number).image
