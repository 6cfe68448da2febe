"""A small data set of videos: two classes, of which one gets brighter and the other darker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kinglet.tracking.pictures import VideoWriter
from tasks import check_data, ingest, plan, profile, split
from tasks.parameters import Parameters

CLASSES = ("brighter", "darker")
WIDTH, HEIGHT, RATE = 48, 32, 10.0


def settings(**sections: dict[str, Any]) -> Parameters:
    """Return parameters for the folder `videos`, with changes by section."""
    values: dict[str, Any] = {
        "problem": "video",
        "data": {"source": "videos", "images": "videos"},
        "clips": {"frames": 4, "frames_per_second": RATE, "per_video": 1},
        "check": {"min_images_per_class": 3, "max_unreadable": 0.6},
        "finetune": {"backbone": "efficientnet-lite0", "input_size": 32, "low_resolution_share": 0},
        "crossvalidate": {"folds": []},
        "domains": {"most": 0},
        "quantize": {"qat_epochs": 0},
    }
    for section, changes in sections.items():
        values[section] = {**values.get(section, {}), **changes}
    return Parameters.model_validate(values)


def write_changing(file: Path, label: str, seed: int, n_frames: int = 5, rate: float = RATE) -> Path:
    """Write a video of a coloured pattern that gets brighter or darker."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pattern = np.random.default_rng(seed).integers(0, 120, (4, 6, 3)).repeat(8, axis=0).repeat(8, axis=1)
    with VideoWriter(file, rate) as video:
        for number in range(n_frames):
            step = number if label == CLASSES[0] else n_frames - number
            video.write((pattern + 20 * step).clip(0, 255).astype(np.uint8), number / rate)
    return file


def write_videos(root: Path, per_class: int = 5, n_frames: int = 5) -> Path:
    """Write a folder of videos, one sub-folder per class, and return it."""
    for which, label in enumerate(CLASSES):
        for number in range(per_class):
            write_changing(root / label / f"{number}.mp4", label, 100 * which + number, n_frames)
    return root


def run_all(parameters: Parameters) -> None:
    """Run the steps from the source to the split."""
    for step in (ingest, profile, check_data, split, plan):
        step.run(parameters)
