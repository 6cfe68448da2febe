"""The images that both loops of the benchmark `training_speed` train on: image files, and Kinglet's packed copy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from kinglet.atomic import read_json, write_json
from kinglet.data.packing import Job, Packing, create_packed_file, keep_first_channel, pack
from kinglet.data.sources import open_source
from kinglet.errors import KingletError

MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class TrainingSet:
    """Image files with their labels, and the same images packed.

    paths, labels: one per image. packed: .npy file of uint8 (n, size, size, channels), row i = paths[i].
    packing_seconds: what making it took, in one process.
    """

    paths: list[str]
    labels: list[int]
    n_classes: int
    packed: str
    size: int
    channels: int
    packing_seconds: float

    def write(self, path: Path) -> None:
        """Write the set's description to `path`."""
        write_json(path, asdict(self))


def read_training_set(path: Path) -> TrainingSet:
    """Return the set described in `path`."""
    return TrainingSet(**read_json(path))


def pack_folder(folder: Path, size: int, target: Path) -> TrainingSet:
    """Return the images of a folder with one sub-folder per class, packed into `target` as the step `ingest` does.

    Raises KingletError if a file cannot be decoded: both loops must see the same images.
    """
    started = time.perf_counter()
    source = open_source(str(folder), str(folder))
    create_packed_file(target, len(source.records), size, 3)
    rows = pack(Job(0, source.records, source.read, 1, Packing({size: target}, 3, "stretch", MAX_PIXELS)))
    channels = max(row["channels"] for row in rows)
    if channels == 1:
        gray = target.with_suffix(".gray")
        keep_first_channel(target, gray)
        gray.replace(target)
    seconds = time.perf_counter() - started
    broken = [row["path"] for row in rows if not row["decode_ok"]]
    if broken:
        raise KingletError(f"{folder.name}: {', '.join(broken[:5])} cannot be decoded.", "Take them out of the folder.")
    classes = sorted({record.label for record in source.records})
    return TrainingSet(
        paths=[str(folder / record.location) for record in source.records],
        labels=[classes.index(record.label) for record in source.records],
        n_classes=len(classes),
        packed=str(target),
        size=size,
        channels=channels,
        packing_seconds=round(seconds, 3),
    )


def write_png_folder(description: Path, n_images: int, folder: Path) -> None:
    """Write the first training images of a described data set as PNG files, one sub-folder per class."""
    source = open_source(str(description), "")
    records = [record for record in source.records if record.given_split == "train"][:n_images]
    for record in records:
        path = folder / record.label.replace("/", "-") / f"{Path(record.path).name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.asarray(source.read(record))
        Image.fromarray(pixels[:, :, 0]).save(path)


def images_per_second(step_ends: Sequence[float], batch_size: int, warmup_steps: int) -> float:
    """Return the images per second of the steps after the first `warmup_steps` (at least 1).

    step_ends: when each step ended, in seconds. The first steps hold the allocation of memory and the
    start of worker processes.
    """
    counted = len(step_ends) - warmup_steps
    if warmup_steps < 1 or counted < 1:
        raise ValueError(f"{len(step_ends)} steps leave none after {warmup_steps} for warming up")
    return counted * batch_size / (step_ends[-1] - step_ends[warmup_steps - 1])
