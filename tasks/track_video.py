"""`kinglet track`: the objects of a video or a folder of frames, followed, written down and drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinglet.atomic import atomic_folder, write_json
from kinglet.errors import KingletError
from kinglet.runtime.videos import Video
from kinglet.tracking.association import Settings, joined
from kinglet.tracking.frames import FrameFolder, open_frames
from kinglet.tracking.mot_files import write_tracks
from kinglet.tracking.pictures import VideoWriter, draw_tracks, strip_frames, strip_of
from kinglet.tracking.sequences import FACTS, frames_in, number_in, read_facts, write_class_names
from tasks.followed_sequences import SequenceTracker
from tasks.progress import progress
from tasks.result_folder import ResultFolder

MADE_BY = "kinglet track"
TRACKS, VIDEO, STRIP, RESULT = "tracks.txt", "tracks.mp4", "strip.png", "result.json"
# Single tracks are listed up to so many.
TRACKS_LISTED = 1000


@dataclass(frozen=True)
class Request:
    """What somebody wants to have followed. rate: of a folder of frames per second, None where nobody says it."""

    bundle: Path
    source: Path
    output: Path
    settings: Settings
    rate: float | None = None
    threads: int | None = None
    overwrite: bool = False


def run(request: Request) -> dict[str, Any]:
    """Write tracks.txt, tracks.mp4, strip.png and result.json into the output folder; return the content of the last.

    Raises KingletError, and leaves the folder as it was, for what cannot be read.
    """
    target = ResultFolder(request.output, "--out", MADE_BY, RESULT)
    target.refuse_what_must_stay([request.bundle, request.source], overwrite=request.overwrite)
    frames, knows_rate = open_source(request.source, request.rate)
    tracker = SequenceTracker(request.bundle, request.settings, request.threads)
    parts, pictures, spent = [], list[NDArray[np.uint8]](), Counter[str]()
    shown = strip_frames(len(frames))
    with atomic_folder(request.output) as folder, progress("track") as report:
        with VideoWriter(folder / VIDEO, frames.rate) as video:
            for step in tracker.steps(frames):
                parts.append(step.tracks)
                spent.update(step.seconds)
                drawn = draw_tracks(step.frame.image, step.tracks, tracker.classes)
                video.write(drawn, step.frame.seconds)
                if step.frame.number in shown:
                    pictures.append(drawn)
                report(step.frame.number, len(frames), "frames")
        tracks = joined(parts)
        write_tracks(folder / TRACKS, tracks.classes_from_one())
        write_class_names(folder, tracker.classes)
        Image.fromarray(strip_of(pictures)).save(folder / STRIP)
        rate = len(frames) / sum(spent.values())
        result = {
            "made_by": MADE_BY,
            "bundle": request.bundle.as_posix(),
            "source": request.source.as_posix(),
            "settings": asdict(request.settings),
            "frames": len(frames),
            "is_even": frames.is_even,
            "identities": len(set(tracks.ids.tolist())),
            "boxes": len(tracks),
            "frames_per_second": round(rate, 2),
            "video_frames_per_second": round(frames.rate, 3) if knows_rate else None,
            # How many times faster than the video plays: below 1, a camera would run ahead.
            "real_time_factor": round(rate / frames.rate, 3) if knows_rate else None,
            "ms_per_frame": {name: round(1000 * seconds / len(frames), 3) for name, seconds in spent.items()},
            "tracks": [
                {
                    "id": identity,
                    "class": tracker.classes[int(tracks.labels[tracks.ids == identity][0])],
                    "frames": int((tracks.ids == identity).sum()),
                    "first": int(tracks.frames[tracks.ids == identity][0]),
                    "last": int(tracks.frames[tracks.ids == identity][-1]),
                }
                for identity in np.unique(tracks.ids).tolist()[:TRACKS_LISTED]
            ],
            "files": {"tracks": TRACKS, "video": VIDEO, "strip": STRIP},
        }
        write_json(folder / RESULT, result)
    return result


def open_source(source: Path, rate: float | None) -> tuple[Video | FrameFolder, bool]:
    """Return the frames of a video, a folder of images or a sequence, and whether their rate is known.

    Raises KingletError for what is none of them, and for a rate given to a video, which has its own.
    """
    if source.is_dir():
        facts = read_facts(source / FACTS)
        inner = frames_in(source, facts.get("imdir", "img1")) if facts or (source / "img1").is_dir() else source
        if inner.is_dir():
            folder = FrameFolder(inner, rate or number_in(facts, "framerate", source))
            return folder, folder.knows_rate
        source = inner
    if rate is not None:
        raise KingletError(f"--rate is for folders of frames, and {source} has its own times.", "Leave --rate out.")
    return open_frames(source), True
