"""What `ingest` and `split` leave of clips in which one side of the picture, or all of it, gets red or blue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tasks.artifacts import INGEST, SPLIT, packed_clips
from tests.unit.models.clip_classifier_files import CLASSES, FRAMES, SIZE
from tests.unit.tasks.small_project import write_data

VIDEO = {
    "problem": "video",
    "data": {"source": "videos", "images": "videos", "fit": "pad"},
    "crossvalidate": {"folds": []},
}


def write_moving(splits: np.ndarray, domains: np.ndarray, packed: np.ndarray) -> None:
    """Write clips, which `filmed` gives, into artifacts/.

    splits, domains: of each clip. packed: the clips as they are seen, uint8 (n, frames, SIZE, SIZE, 3).
    """
    labels = np.arange(len(splits)) % len(CLASSES)
    write_data(Path(), {SIZE: packed[:, packed.shape[1] // 2]}, labels, splits, CLASSES)
    np.save(packed_clips(SIZE), packed)
    manifest = pd.read_parquet(SPLIT / "manifest.parquet").assign(domain=domains)
    for folder in (INGEST, SPLIT):
        manifest.to_parquet(folder / "manifest.parquet", index=False)


def filmed(n: int) -> np.ndarray:
    """Return clips of the classes in turn, uint8 (n, FRAMES, SIZE, SIZE, 3): a side gets red, frame by frame."""
    sides = (slice(0, SIZE // 2), slice(SIZE // 2, SIZE), slice(0, SIZE))
    clips = np.random.default_rng(5).integers(20, 80, (n, FRAMES, SIZE, SIZE, 3))
    for number, clip in enumerate(clips):
        for step, frame in enumerate(clip):
            frame[:, sides[number % len(CLASSES)], 0] += 30 * step
    return clips.astype(np.uint8)
