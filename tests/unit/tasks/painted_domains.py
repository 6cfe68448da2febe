"""What `ingest` and `split` leave of images with boxes and masks from two cameras, of which one sees other colours."""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from kinglet.atomic import write_json
from tasks.artifacts import BOXES, INGEST, SOURCE_FACTS, SPLIT, mask_file, packed_images, packed_masks
from tests.unit.data.painted_rectangles import painted

SIZE = 64
CLASSES = {"detection": ["blue", "red"], "segmentation": ["background", "blue", "red"]}


def write_painted(problem: str, splits: np.ndarray, domains: np.ndarray, packed: np.ndarray) -> None:
    """Write images of rectangles, which `pictures` draws, with their boxes and masks, into artifacts/.

    splits, domains: of each image. packed: the images as they are seen, uint8 (n, SIZE, SIZE, 3).
    """
    n, index = len(splits), np.arange(len(splits))
    for folder in (INGEST, SPLIT, mask_file(0).parent):
        folder.mkdir(parents=True)
    np.save(packed_images(SIZE), packed)
    pd.DataFrame({"index": index, "width": SIZE, "height": SIZE}).to_parquet(INGEST / "manifest.parquet")
    columns = {"index": index, "path": [f"{number}.png" for number in index], "label_index": -1, "split": splits}
    columns |= {"domain": domains, "sha256": [f"{17 * number % 997:03}" for number in index]}
    pd.DataFrame(columns).to_parquet(SPLIT / "manifest.parquet")
    write_json(SPLIT / "classes.json", CLASSES[problem])
    sizes = {"teacher": SIZE, "low_resolution": SIZE, "student": SIZE, "students": {}, "candidates": []}
    write_json(SOURCE_FACTS, {"input_sizes": sizes, "short_side": SIZE})
    rows, masks = [], np.zeros((n, SIZE, SIZE), np.uint8)
    for number, objects in enumerate(painted(n, size=SIZE, seed=3).objects):
        for (x1, y1, x2, y2), label in zip(objects.xyxy.astype(int).tolist(), objects.labels.tolist(), strict=True):
            rows.append({"index": number, "label": CLASSES["detection"][label], "x1": x1, "y1": y1, "x2": x2, "y2": y2})
            masks[number, y1:y2, x1:x2] = 1 + label
        Image.fromarray(masks[number]).save(mask_file(number))
    np.save(packed_masks(SIZE), masks)
    pd.DataFrame(rows).astype(dict.fromkeys(("x1", "y1", "x2", "y2"), float)).to_parquet(BOXES)


def pictures(n: int) -> np.ndarray:
    """Return the images as the first camera sees them, uint8 (n, SIZE, SIZE, 3)."""
    return painted(n, size=SIZE, seed=3).packed
