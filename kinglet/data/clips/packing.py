"""Decoding clips once: one row of facts each, all their frames in square, memory-mapped arrays, the middle one alone.

A clip of which one frame cannot be decoded is no clip: its rows in the arrays stay black, and its problem is said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.atomic import atomic_path
from kinglet.data.clips.clip_records import ClipRecord, frames_in, of_video
from kinglet.data.packing import NOTHING_KNOWN, Job, hash_pixels, manifest_row
from kinglet.errors import KingletError
from kinglet.runtime.preprocessing import match_channels, resize
from kinglet.runtime.videos import Video

Arrays = dict[int, NDArray[np.uint8]]


def pack_clips(job: Job) -> list[dict[str, Any]]:
    """Decode the job's clips and write their frames into the packed files; return a manifest row for each.

    The records are `ClipRecord`s. A row has the keys of `kinglet.data.packing.COLUMNS`, and "channels": 1 if all its
    frames are gray, else 3, 0 if undecodable. `pixels_sha256` is of all frames, `sha256` of the video's file.
    """
    packing = job.packing
    images = {size: np.lib.format.open_memmap(path, "r+") for size, path in packing.files.items()}
    clips = {size: np.lib.format.open_memmap(path, "r+") for size, path in packing.clips.items()}
    rows = []
    for row, (record, facts, squares) in enumerate(decoded_clips(job), start=job.first):
        for size, frames in squares.items():
            clips[size][row] = frames
            images[size][row] = frames[len(frames) // 2]
        rows.append(manifest_row(row, record, facts))
    return rows


def decoded_clips(job: Job) -> Iterator[tuple[ClipRecord, dict[str, Any], Arrays]]:
    """Yield every clip with its facts and its frames by size, uint8 (frames, size, size, channels).

    There are none of a clip that cannot be decoded. A video of several clips is opened once.
    """
    records = [record for record in job.records if isinstance(record, ClipRecord)]
    assert len(records) == len(job.records)
    for file, of_file in groupby(records, key=lambda record: record.location):
        content = facts_of_file(Path(file))
        video: Video | None = None
        for record in of_file:
            facts, squares = {**NOTHING_KNOWN, **content, "problem": record.problem}, Arrays()
            if not record.problem:
                try:
                    video = video or Video(Path(file))
                    decoded, squares = decode_clip(video, record, job)
                    facts |= decoded
                except KingletError as error:
                    facts["problem"] = of_video(error, file)
            yield record, facts, squares


def facts_of_file(file: Path) -> dict[str, Any]:
    """Return what is noted of a video's file: its sum, its bytes and its format; nothing if it cannot be read."""
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        return {"sha256": digest, "bytes": file.stat().st_size, "format": file.suffix[1:].upper()}
    except OSError:
        return {}


def decode_clip(video: Video, record: ClipRecord, job: Job) -> tuple[dict[str, Any], Arrays]:
    """Return the facts about a clip, and its frames by size; raises KingletError for a frame that cannot be used."""
    packing = job.packing
    squares: Arrays = {
        size: np.empty((len(record.frame_numbers), size, size, packing.channels), np.uint8) for size in packing.clips
    }
    digest, gray, height, width = hashlib.sha256(), True, 0, 0
    for place, image in enumerate(frames_in(video, record)):
        height, width = image.shape[:2]
        if height * width > packing.max_pixels:
            raise KingletError(f"too large: {width} x {height} pixels, at most {packing.max_pixels} are allowed")
        digest.update(hash_pixels(image).encode())
        gray = gray and bool((image[:, :, :1] == image[:, :, 1:]).all())
        matched = match_channels(image, packing.channels)
        for size, frames in squares.items():
            frames[place] = resize(matched, size, packing.fit)
    facts = {
        "pixels_sha256": digest.hexdigest(),
        "mode": "L" if gray else "RGB",
        "width": width,
        "height": height,
        "frames": len(record.frame_numbers),
        "decode_ok": True,
        "channels": 1 if gray else 3,
    }
    return facts, squares


def write_clip_table(records: Sequence[ClipRecord], rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Write which frames of which video every clip is: index, video, width, height, frame_numbers and seconds.

    rows: of the manifest, in the order of the records. Width and height are of the frames as shown, in pixels; 0 for a
    clip that could not be decoded.
    """
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, Any] = {
        "index": pyarrow.array([row["index"] for row in rows], pyarrow.int64()),
        "video": pyarrow.array([record.video for record in records], pyarrow.string()),
        "width": pyarrow.array([row["width"] for row in rows], pyarrow.int64()),
        "height": pyarrow.array([row["height"] for row in rows], pyarrow.int64()),
        "frame_numbers": pyarrow.array(
            [list(record.frame_numbers) for record in records], pyarrow.list_(pyarrow.int64())
        ),
        "seconds": pyarrow.array([list(record.seconds) for record in records], pyarrow.list_(pyarrow.float64())),
    }
    with atomic_path(file) as path:
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
