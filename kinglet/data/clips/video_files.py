"""Which videos a data set holds, and the class of each: a folder with one sub-folder per class, or a table.

A table has a row per video, or per part of one: path, label and, if wanted, start and end in seconds, group, domain,
split and others.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from kinglet.data.sources import kind_of
from kinglet.data.sources.domains import NAMES, read_domains
from kinglet.data.sources.folder import list_files
from kinglet.data.sources.layout import NOT_A_CLASS, NOT_IN_A_CLASS, arrange, is_hidden
from kinglet.data.sources.records import SPLIT_NAMES, Record, printable
from kinglet.data.sources.table import Row, is_file, read_rows, refuse_missing
from kinglet.errors import KingletError
from kinglet.runtime.videos import SUFFIXES

LAYOUT_HINT = "Make one sub-folder per class and put its videos inside, or name a .csv table of paths and labels."
WITHOUT_VIDEO = "top-level folders without a video, not taken for classes"
START, END = "start", "end"
# Names that say from which recording a video was cut: of UCF101, HMDB51 and KTH. What is cut from one recording must
# not stand on both sides of a split.
RECORDINGS = (
    re.compile(r"(?P<recording>v_.+_g\d+)_c\d+"),
    re.compile(r"(?P<recording>.+)_[a-z]_(?:cm|nm)_np\d_(?:ba|fr|le|ri)_(?:bad|med|goo)_\d+"),
    re.compile(r"(?P<recording>person\d+)_.+_d\d+(?:_uncomp)?"),
)


@dataclass(frozen=True)
class VideoPart:
    """A video with a class, or a part of one.

    record: with the path of the video and, in `location`, its file. start, end: in seconds after the first frame, of
    the part that shows the class; end None for the video's own. place: where a table says so, for messages.
    """

    record: Record
    start: float = 0.0
    end: float | None = None
    place: str = ""


@dataclass(frozen=True)
class VideoSet:
    """The videos of a data set, sorted by path and start. kind, left_out, notes: as of a `Source`."""

    kind: str
    parts: list[VideoPart]
    left_out: dict[str, list[str]]
    notes: list[str]


def is_video_name(path: str) -> bool:
    """Return whether a name ends like that of a video."""
    return path.lower().endswith(SUFFIXES)


def find_videos(location: str, videos: str, aside: Sequence[str] = ()) -> VideoSet:
    """Return the videos at `location`, a folder or a table, with their classes.

    videos: the folder in which a table's paths are looked for first. aside: names of files in the folder that say
    something of the set as a whole. Raises KingletError for a location that holds no videos with classes, and for what
    `videos_in_folder` and `videos_in_table` refuse.
    """
    kind = kind_of(location)
    if kind == "folder":
        return videos_in_folder(Path(location), aside)
    if kind == "table":
        return videos_in_table(Path(location), Path(videos))
    raise KingletError(f"data.source: {location} is a {kind}, and videos are read from a folder.", LAYOUT_HINT)


def videos_in_folder(root: Path, aside: Sequence[str] = ()) -> VideoSet:
    """Return the videos of a folder with one sub-folder per class (or with train, validation, test above them).

    Their domains are those of a domains.csv in it. Raises KingletError for a folder that holds no video of a class, and
    for a domains.csv that cannot be understood.
    """
    paths, domains = [path for path in list_files(root) if path not in (*aside, NAMES)], read_domains(root)
    records, left_out = arrange(paths, is_video_name, has_suffix=is_video_name)
    if not records:
        loose = [path for path in left_out.get(NOT_IN_A_CLASS, []) if is_video_name(path)]
        what = f"{len(loose)} videos but no folder of a class" if loose else "no videos"
        raise KingletError(f"data.source: the folder {root} holds {what}.", LAYOUT_HINT)
    without = sorted({*left_out.pop(NOT_A_CLASS, []), *empty_folders(root, paths)})
    located = [
        replace(record, location=str(root / record.location), domain=domains.of(record.location)) for record in records
    ]
    parts = [VideoPart(in_its_group(record)) for record in located]
    return VideoSet("folder", parts, {**left_out, **({WITHOUT_VIDEO: without} if without else {})}, [])


def empty_folders(root: Path, paths: Sequence[str]) -> list[str]:
    """Return the folders directly below `root` that hold no file; paths: of all files below it."""
    filled = {path.partition("/")[0] for path in paths}
    names = [path.name for path in root.iterdir() if path.is_dir() and path.name not in filled]
    return sorted(printable(name) for name in names if not is_hidden(name))


def videos_in_table(table: Path, videos: Path) -> VideoSet:
    """Return the videos of a table of paths and labels.

    Raises KingletError, with the table's name and the line, for what `read_rows` refuses, a file that does not exist,
    times that are none, and parts of one video that overlap.
    """
    rows = read_rows(table)
    folders = [videos, table.parent]
    missing, parts = [], []
    for row in rows:
        home = next((folder for folder in folders if is_file(folder / row.path)), None)
        if home is None:
            missing.append(row)
        else:
            parts.append(part_of(row, home, table))
    refuse_missing(missing, str(table), folders)
    parts.sort(key=lambda part: (part.record.path, part.start))
    kept = without_repetitions(parts, table)
    repeated = len(parts) - len(kept)
    notes = [f"{table}: {repeated} rows repeat another one and count once."] if repeated else []
    watched = videos.resolve()
    if any(not Path(part.record.location).resolve().is_relative_to(watched) for part in kept):
        notes.append(
            f"{table} names videos outside of data.images ({videos}); changes of those videos go unnoticed. "
            "Set data.images to the folder they lie in."
        )
    return VideoSet("table", kept, {}, notes)


def part_of(row: Row, home: Path, table: Path) -> VideoPart:
    """Return what a row says of a video whose file lies in the folder `home`; raises KingletError for wrong times."""
    given = dict(row.further)
    start, end = (seconds_in(given.get(name, ""), name, row, table) for name in (START, END))
    if end is not None and end <= (start or 0.0):
        raise KingletError(
            f"{table}, {row.place}: {row.path} is to end at {end:g} s, and to start at {start or 0.0:g} s.",
            "Write both in seconds after the first frame.",
        )
    further = tuple((name, value) for name, value in row.further if name not in (START, END))
    record = Record(
        row.path,
        str(home / row.path),
        row.label,
        row.group,
        row.domain,
        SPLIT_NAMES.get(row.split, ""),
        further=further,
    )
    return VideoPart(in_its_group(record), start or 0.0, end, row.place)


def seconds_in(text: str, name: str, row: Row, table: Path) -> float | None:
    """Return a time in seconds, None where nothing stands; raises KingletError for what is no time."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise KingletError(
            f"{table}, {row.place}: {name} is {text!r}, which is no time.", "Write seconds after the first frame."
        )
    return seconds


def without_repetitions(parts: Sequence[VideoPart], table: Path) -> list[VideoPart]:
    """Return the parts without those that say the same again; parts: sorted by path and start.

    Raises KingletError for two parts of one video that overlap, or that belong to two groups or parts of the split.
    """
    kept: list[VideoPart] = []
    by_path: dict[str, list[VideoPart]] = defaultdict(list)
    for part in parts:
        before = by_path[part.record.path]
        if any(replace(part, place=other.place) == other for other in before):
            continue
        before.append(part)
        kept.append(part)
    for of_video in by_path.values():
        for first, second in pairwise(of_video):
            if first.end is None or second.start < first.end:
                raise KingletError(
                    f"{table}, {second.place}: this part of {second.record.path}, {second.record.label!r} from "
                    f"{second.start:g} s on, overlaps that of {first.place}, {first.record.label!r}.",
                    "A clip has one class: let parts end where the next begins.",
                )
            for what, values in (
                ("group", (first.record.group, second.record.group)),
                ("split", (first.record.given_split, second.record.given_split)),
            ):
                if values[0] != values[1]:
                    raise KingletError(
                        f"{table}, {second.place}: {second.record.path} has the {what} {values[1]!r}, "
                        f"but {values[0]!r} in {first.place}.",
                        "Parts of one video stay together.",
                    )
    return kept


def in_its_group(record: Record) -> Record:
    """Return the record of a video with the group that its clips stay together in: the recording it was cut from.

    A group that a table gives is kept; where the name does not tell the recording, it is the video itself.
    """
    if record.group:
        return record
    stem = Path(record.path).stem
    found = next((match for pattern in RECORDINGS if (match := pattern.fullmatch(stem))), None)
    return replace(record, group=found["recording"] if found else record.path)
