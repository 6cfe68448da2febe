"""Decoding images once: one row of facts each, and their pixels in square, memory-mapped arrays."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.data.sources.records import Content, Record
from kinglet.runtime.decoding import UndecodableImageError, decode, read_size
from kinglet.runtime.preprocessing import match_channels, resize

COLUMNS: dict[str, type] = {
    "index": int,
    "path": str,
    "sha256": str,
    "pixels_sha256": str,
    "bytes": int,
    "format": str,
    "mode": str,
    "width": int,
    "height": int,
    "frames": int,
    "label": str,
    "group": str,
    "domain": str,
    "given_split": str,
    "decode_ok": bool,
    "problem": str,
}


# The facts about an image that cannot be read; its problem is to be said.
NOTHING_KNOWN: dict[str, Any] = {
    "sha256": "",
    "pixels_sha256": "",
    "bytes": 0,
    "format": "",
    "mode": "",
    "width": 0,
    "height": 0,
    "frames": 0,
    "decode_ok": False,
    "problem": "",
    "channels": 0,
}


@dataclass(frozen=True)
class Packing:
    """How images are packed.

    files: {edge length in pixels: .npy file}, made by `create_packed_file`. clips: the same for clips of several
    frames, of which `files` takes the middle ones; empty where there are none.
    """

    files: dict[int, Path]
    channels: int
    fit: str
    max_pixels: int
    clips: dict[int, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A run of neighbouring records; `first` is the row of the first one."""

    first: int
    records: Sequence[Record]
    read: Callable[[Record], Content]
    concurrent_reads: int
    packing: Packing


def usual_short_side(
    records: Sequence[Record], read: Callable[[Record], Content], max_pixels: int, at_most: int = 200
) -> int:
    """Return the median short side in pixels of up to `at_most` evenly spaced images; 0 if none says its size.

    Only headers are looked at, so that large photographs cost no time.
    """
    step = -(-len(records) // at_most) or 1
    sides = []
    for record in records[::step]:
        content = read_or_error(read, record)
        if isinstance(content, np.ndarray):
            sides.append(min(content.shape[:2]))
        elif isinstance(content, bytes):
            with suppress(UndecodableImageError):
                sides.append(min(read_size(content, max_pixels)))
    return sorted(sides)[len(sides) // 2] if sides else 0


def create_packed_file(path: Path, n_images: int, size: int, channels: int, frames: int = 0) -> None:
    """Make a .npy file of zeros for uint8 images of shape (n_images, size, size, channels).

    frames: of clips, uint8 (n_images, frames, size, size, channels); 0 for images.
    Its space is taken at once. Raises OSError (ENOSPC) if there is not enough: writing through a memory
    map into space that is not there would end the process without a word.
    """
    shape = (n_images, *([frames] if frames else []), size, size, channels)
    packed = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    del packed
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def pack(job: Job) -> list[dict[str, Any]]:
    """Read and decode the job's images and write them into the packed files; return a manifest row for each.

    A row has the keys of `COLUMNS`, and "channels": 1 or 3 as decoded, 0 if undecodable.
    """
    arrays = {size: np.lib.format.open_memmap(path, "r+") for size, path in job.packing.files.items()}
    rows = []
    for row, (record, content) in enumerate(contents(job), start=job.first):
        facts, pixels = examine(content, job.packing.max_pixels)
        if pixels is not None:
            image = match_channels(pixels, job.packing.channels)
            for size, packed in arrays.items():
                packed[row] = resize(image, size, job.packing.fit)
        rows.append(manifest_row(row, record, facts))
    return rows


def manifest_row(index: int, record: Record, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a record in the manifest; facts: as `examine` gives them."""
    labels = {"label": record.label, "group": record.group, "domain": record.domain, "given_split": record.given_split}
    return {"index": index, "path": record.path, **labels, **facts, "problem": facts["problem"] or record.problem}


def contents(job: Job) -> Iterator[tuple[Record, Content | OSError]]:
    """Yield every record with its content, or with the error that reading it gave."""
    if job.concurrent_reads == 1:
        for record in job.records:
            yield record, read_or_error(job.read, record)
        return
    with ThreadPoolExecutor(job.concurrent_reads) as pool:
        yield from zip(job.records, pool.map(lambda record: read_or_error(job.read, record), job.records), strict=True)


def read_or_error(read: Callable[[Record], Content], record: Record) -> Content | OSError:
    """Return what `read` returns, or the OSError it raises."""
    try:
        return read(record)
    except OSError as error:
        return error


def examine(content: Content | OSError, max_pixels: int) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
    """Return the facts about one image, and its pixels, (height, width, 1 or 3) uint8, or None if undecodable."""
    facts = dict(NOTHING_KNOWN)
    if isinstance(content, OSError):
        return {**facts, "problem": f"cannot be read: {content.strerror or content}"}, None
    if isinstance(content, np.ndarray):
        pixels = content
        height, width, channels = pixels.shape
        facts |= {"sha256": hashlib.sha256(pixels.tobytes()).hexdigest(), "bytes": pixels.nbytes}
        facts |= {"format": "IDX", "mode": "L" if channels == 1 else "RGB", "width": width, "height": height}
        facts |= {"frames": 1}
    else:
        facts |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        try:
            pixels, found = decode(content, max_pixels)
        except UndecodableImageError as error:
            return {**facts, "problem": str(error)}, None
        facts |= {"format": found.format, "mode": found.mode, "width": found.width, "height": found.height}
        facts |= {"frames": found.frames}
    return {
        **facts,
        "decode_ok": True,
        "channels": pixels.shape[2],
        "pixels_sha256": hash_pixels(pixels),
    }, pixels


def hash_pixels(pixels: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of an image's shape and pixels, as hexadecimal digits."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def keep_first_channel(source: Path, target: Path, bytes_at_once: int = 1 << 26) -> None:
    """Write the first channel of the packed images or clips in `source` as a packed file of one channel."""
    packed = np.load(source, mmap_mode="r")
    n_images, *frames, size = packed.shape[:-2]
    create_packed_file(target, n_images, size, 1, *frames)
    gray = np.lib.format.open_memmap(target, "r+")
    rows_at_once = max(1, bytes_at_once // max(1, packed[:1].nbytes))
    for first in range(0, n_images, rows_at_once):
        gray[first : first + rows_at_once] = packed[first : first + rows_at_once, ..., :1]
    gray.flush()
