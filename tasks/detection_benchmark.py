"""What it takes to turn a detector's answer into objects, which follows on the network and is no part of its time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from kinglet.runtime.detection import DETECTOR_OUTPUTS, run_as_one
from kinglet.runtime.preprocessing import model_input, placement
from kinglet.runtime.sessions import open_session
from kinglet.runtime.thresholds import Thresholds
from tasks.artifacts import SPLIT, ModelCard, packed_images
from tasks.image_tables import read_parquet

# Validation images whose objects are decoded, and how often each.
IMAGES, REPETITIONS = 32, 5


def decoding_time(folder: Path, card: ModelCard) -> dict[str, Any]:
    """Return how long a detector's answers take to be decoded, the median in milliseconds, and what they held.

    The answers to validation images, as they are served: their objects decide how much there is to do.
    """
    rows = read_parquet(SPLIT / "manifest.parquet", ["index"], "validation")["index"].to_numpy()[:IMAGES]
    packed = np.load(packed_images(card.input_size), mmap_mode="r")
    session = open_session(folder / card.file_names[0], threads=1, outputs=DETECTOR_OUTPUTS)
    edge, thresholds = card.input_size, Thresholds()
    where = [placement(edge, edge, edge, card.fit)]
    seconds, n_objects = [], 0
    for row in rows.tolist():
        outputs = run_as_one(session, model_input(np.asarray(packed[row])[None], card.preprocessing))
        n_objects += len(thresholds.decode(outputs, where)[0])
        for _ in range(REPETITIONS):
            started = time.perf_counter()
            thresholds.decode(outputs, where)
            seconds.append(time.perf_counter() - started)
    return {
        "p50_ms": round(1000 * float(np.median(seconds)), 4),
        "images": len(rows),
        "objects_per_image": round(n_objects / len(rows), 2),
    }
