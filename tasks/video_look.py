"""A first look at videos that somebody brings: what `kinglet init` says of them. No frame is decoded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from kinglet.data.annotations import annotation_format
from kinglet.data.clips.clip_records import ClipRecord, SeenVideo, clip_records
from kinglet.data.clips.video_files import VideoSet, find_videos, is_video_name
from kinglet.data.resolutions import teacher_size
from kinglet.data.sources import kind_of
from kinglet.data.sources.folder import list_files
from kinglet.data.sources.table import read_rows
from kinglet.errors import KingletError
from kinglet.runtime.cutting import Cutting
from tasks.artifacts import GENERATED
from tasks.clip_settings import Clips
from tasks.clip_source import cutting_of, see_videos


@dataclass(frozen=True)
class VideoLook:
    """What was seen of a data set of videos. clips: all that are cut, also those that a problem keeps out."""

    found: VideoSet
    seen: list[SeenVideo]
    cutting: Cutting
    clips: list[ClipRecord]

    @property
    def usable(self) -> list[ClipRecord]:
        """The clips without a known problem."""
        return [clip for clip in self.clips if not clip.problem]

    @property
    def problems(self) -> dict[str, str]:
        """{path of a video: why it gives no clip}."""
        return {clip.path: clip.problem for clip in self.clips if clip.problem}

    @property
    def classes(self) -> dict[str, int]:
        """{class: its usable clips}, by name; also classes that have none."""
        counts = Counter(dict.fromkeys(sorted({clip.label for clip in self.clips}), 0))
        counts.update(clip.label for clip in self.usable)
        return dict(counts)

    @property
    def domains(self) -> int:
        """How many domains the usable clips are of."""
        return len({clip.domain for clip in self.usable} - {""})

    @property
    def splits(self) -> dict[str, int]:
        """{part of the split that the set brings: its usable clips}."""
        return dict(sorted(Counter(clip.given_split for clip in self.usable if clip.given_split).items()))

    @property
    def input_size(self) -> int:
        """The edge in pixels that `auto` gives the network."""
        sides = sorted(min(video.size) for video in self.seen if not video.problem)
        return teacher_size(sides[len(sides) // 2])


def holds_videos(location: str) -> bool:
    """Return whether a data set consists of videos: a folder without images, or a table that names some."""
    kind = kind_of(location)
    if kind == "folder":
        found = annotation_format(Path(location), list_files(Path(location)))
        return found is not None and found.problem == "video"
    return kind == "table" and any(is_video_name(row.path) for row in read_rows(Path(location)))


def look_at_videos(location: str, videos: str, settings: Clips | None = None) -> VideoLook:
    """Return what a data set of videos is. videos: the folder of a table's videos.

    Raises KingletError if it is none that Kinglet can learn from.
    """
    found = find_videos(location, videos, aside=[GENERATED])
    labels = {part.record.label for part in found.parts}
    if len(labels) < 2:
        raise KingletError(
            f"{location} holds {len(found.parts)} videos of one class; a classifier needs two classes.",
            "Make one sub-folder per class, or name a table of paths and labels.",
        )
    seen = see_videos(found.parts)
    cutting = cutting_of(found, seen, settings or Clips())
    return VideoLook(found, seen, cutting, clip_records(found.parts, seen, cutting))
