"""What it takes to turn a segmenter's answer into a mask, which follows on the network and is no part of its time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kinglet.runtime.preprocessing import model_input, placement
from kinglet.runtime.segmentation import decode_masks
from kinglet.runtime.sessions import open_session, run
from tasks.artifacts import INGEST, SPLIT, ModelCard, packed_images
from tasks.image_tables import read_parquet

# Validation images whose masks are decoded, and how often each.
IMAGES, REPETITIONS = 8, 5


def mask_decoding_time(folder: Path, card: ModelCard) -> dict[str, Any]:
    """Return how long a segmenter's answers take to become masks of the images' own pixels, the median in milliseconds,
    and how many pixels a mask had.

    The answers to validation images, as they are served.
    """
    rows = read_parquet(SPLIT / "manifest.parquet", ["index"], "validation")["index"].to_numpy()[:IMAGES]
    shapes = pd.read_parquet(INGEST / "manifest.parquet", columns=["index", "width", "height"]).set_index("index")
    packed = np.load(packed_images(card.input_size), mmap_mode="r")
    session = open_session(folder / card.file_names[0], threads=1)
    seconds, pixels = [], []
    for row in rows.tolist():
        width, height = (int(edge) for edge in shapes.loc[row])
        logits = run(session, model_input(np.asarray(packed[row])[None], card.preprocessing))
        where = [placement(width, height, card.input_size, card.fit)]
        pixels.append(width * height)
        for _ in range(REPETITIONS):
            started = time.perf_counter()
            decode_masks(logits, where, [(width, height)])
            seconds.append(time.perf_counter() - started)
    return {
        "p50_ms": round(1000 * float(np.median(seconds)), 4),
        "images": len(rows),
        "megapixels_per_image": round(float(np.mean(pixels)) / 1e6, 4),
    }
