"""The source of a data set of videos: clips that have one class each, cut out of a folder's or a table's videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from kinglet.atomic import read_json
from kinglet.data.clips.clip_records import ClipRecord, SeenVideo, clip_records, frames_of, read_middle, see_all
from kinglet.data.clips.packing import pack_clips, write_clip_table
from kinglet.data.clips.video_files import VideoPart, VideoSet, find_videos
from kinglet.data.sources import Source
from kinglet.errors import KingletError
from kinglet.runtime.cutting import Cutting, chosen_cutting
from tasks.annotated_source import notes_on_unlabelled
from tasks.artifacts import CLIPS, GENERATED
from tasks.clip_settings import Clips
from tasks.opened_source import OpenedSource, as_decided, choose_sizes, tell
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.settings_section import AUTO
from tasks.worker_processes import in_processes, job_ranges


def open_clips(parameters: Parameters) -> OpenedSource:
    """Return the source of clips that have a class each, and print what is left out of it.

    Raises KingletError for a source without videos that can be used, and for corrections or ignored classes that cannot
    be followed.
    """
    data = parameters.data
    found = find_videos(data.source, data.images, aside=[GENERATED])
    seen = see_videos(found.parts)
    cutting = cutting_of(found, seen, parameters.clips)
    sides = [min(video.size) for video in seen if not video.problem]
    short_side = sorted(sides)[len(sides) // 2]
    source = Source(
        found.kind,
        list(clip_records(found.parts, seen, cutting)),
        read_middle,
        left_out=found.left_out,
        notes=[
            *found.notes,
            in_words(found, seen, cutting),
            *notes_on_made(data.source),
            *notes_on_unlabelled(data.unlabelled, "clips are learned from labels alone"),
        ],
    )
    source, ignored = as_decided(source, data)
    tell(source, ignored, "clips")
    clips = cast("list[ClipRecord]", source.records)

    def write_annotations(rows: list[dict[str, Any]]) -> None:
        write_clip_table(clips, rows, CLIPS)

    return OpenedSource(
        source,
        Source("unlabelled", [], source.read),
        ignored,
        short_side,
        choose_sizes(parameters, short_side),
        write_annotations,
        {"clips": facts_of(found, seen, cutting), **generated_facts(data.source)},
        pack=pack_clips,
        frames=cutting.frames,
    )


def see_videos(parts: Sequence[VideoPart]) -> list[SeenVideo]:
    """Return what is seen of the video of each part; every file is looked at once."""
    files = list(dict.fromkeys(part.record.location for part in parts))
    jobs = [files[run.start : run.stop] for run in job_ranges(len(files))]
    seen: list[SeenVideo] = []
    with progress("look at videos") as report:
        for done in in_processes(see_all, jobs, len(files)):
            seen += done
            report(len(seen), len(files), "videos")
    of_file = dict(zip(files, seen, strict=True))
    return [of_file[part.record.location] for part in parts]


def cutting_of(found: VideoSet, seen: Sequence[SeenVideo], settings: Clips) -> Cutting:
    """Return how clips are cut, what is "auto" chosen by the videos; raises KingletError if none can be used."""
    rate, per_video = settings.frames_per_second, settings.per_video
    try:
        return chosen_cutting(
            [video.seconds[frames_of(part, video.seconds)] for part, video in zip(found.parts, seen, strict=True)],
            settings.frames,
            None if rate == AUTO else rate,
            None if per_video == AUTO else per_video,
        )
    except ValueError:
        path = found.parts[0].record.path
        problem = seen[0].problem or "it has a single frame"
        raise KingletError(
            f"data.source: none of the {len(found.parts)} videos can be used; {path}: {problem}.",
            "Name a folder of videos with one sub-folder per class, or set problem to classification for images.",
        ) from None


def in_words(found: VideoSet, seen: Sequence[SeenVideo], cutting: Cutting) -> str:
    """Return in a sentence how clips are cut, and how long the videos are."""
    facts = facts_of(found, seen, cutting)
    shortest, usual, longest = facts["video_seconds"]
    cut = "one is" if cutting.per_video == 1 else f"at most {cutting.per_video} are"
    return (
        f"a clip has {cutting.frames} frames, {cutting.rate:.4g} a second, {cutting.seconds:.2f} s from first to last, "
        f"and {cut} cut from a video. The {facts['videos']} videos that can be read last {shortest:.2f} to "
        f"{longest:.2f} s, usually {usual:.2f}."
    )


def facts_of(found: VideoSet, seen: Sequence[SeenVideo], cutting: Cutting) -> dict[str, Any]:
    """Return what source.json says of the clips; video_seconds: the least, the median and the most."""
    read = {part.record.path: video for part, video in zip(found.parts, seen, strict=True) if not video.problem}
    lengths = [float(video.seconds[-1]) for video in read.values()]
    return {
        "frames": cutting.frames,
        "frames_per_second": round(cutting.rate, 6),
        "per_video": cutting.per_video,
        "videos": len(read),
        "video_seconds": [round(float(value), 6) for value in (min(lengths), np.median(lengths), max(lengths))],
    }


def notes_on_made(location: str) -> list[str]:
    """Return in a sentence that a set of videos is made, nothing for any other."""
    made = generated_facts(location).get("generated")
    return [f"the videos in {location} are made, by `{made['made_by']}`; scores on them say so."] if made else []


def generated_facts(location: str) -> dict[str, Any]:
    """Return under `generated` what a folder of made videos says of itself; nothing for any other source.

    Raises KingletError if it cannot be understood.
    """
    path = Path(location) / GENERATED
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
    except ValueError:
        content = None
    if not isinstance(content, dict) or "made_by" not in content:
        raise KingletError(
            f"{path} does not say what made these videos.", "Make them again with `kinglet clips generate`."
        )
    return {"generated": content}
