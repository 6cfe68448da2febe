"""How the ladder of int8 begins for detectors: the images of each role, their boxes, and the steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray

from kinglet.compression.detection_judge import BoxedRows, DetectionJudge
from kinglet.compression.guard import set_aside
from kinglet.compression.ladder import STEPS, Bench, Settings, Step, open_bench
from kinglet.data.batches import open_packed
from kinglet.errors import KingletError
from kinglet.evidence.detection_matches import Objects
from kinglet.reporting import Report
from kinglet.runtime.bundles import MODEL
from kinglet.runtime.preprocessing import Preprocessing, placement
from tasks.artifacts import BOXES, ModelCard, packed_images
from tasks.parameters import Quantize

# Training images that no calibration sees, at most. They judge whether a model is good enough.
CHOICE_IMAGES = 500


def detection_ladder(
    folder: Path,
    card: ModelCard,
    manifest: pd.DataFrame,
    settings: Quantize,
    seed: int,
    report: Report,
    warn: Callable[[str], None],
) -> tuple[Bench, dict[str, Step]]:
    """Give every image of the training split its role; return what the steps work with, and the steps.

    Raises KingletError if the images that judge the models show no object.
    """
    training = manifest[manifest["split"] == "train"].reset_index(drop=True)
    calibration, choice, _ = set_aside(len(training), settings.calibration_images, CHOICE_IMAGES, seed)
    judging = boxed_rows(training.iloc[choice], card)
    if not len(judging.truths):
        raise KingletError(
            f"The {len(choice)} training images that would judge the int8 models of {card.name} show no object.",
            "Bring more images with objects.",
        )
    model = onnx.load(folder / MODEL)
    bench = open_bench(
        card.name,
        model,
        np.asarray(judging.packed[training["index"].to_numpy(np.int64)[calibration]]),
        DetectionJudge(model, judging, card.preprocessing),
        card.preprocessing,
        Settings(settings.methods, settings.weight_bits, settings.tolerance, settings.max_float_layers),
        report,
        warn,
        uint8_input=settings.uint8_input,
    )
    return bench, dict(STEPS)


def boxed_rows(images: pd.DataFrame, card: ModelCard) -> BoxedRows:
    """Return these images, rows of the manifest, as a model sees them, with their boxes."""
    rows = images["index"].to_numpy(np.int64)
    boxes = pd.read_parquet(BOXES)
    place = pd.Series(np.arange(len(rows)), index=rows)
    boxes = boxes[boxes["index"].isin(rows) & boxes["label"].isin(card.classes)]
    sizes = images.set_index("index").loc[boxes["index"], ["width", "height"]].to_numpy(np.int64)
    truths = Objects(
        place.loc[boxes["index"]].to_numpy(np.int64),
        boxes["label"].map({label: number for number, label in enumerate(card.classes)}).to_numpy(np.int64),
        in_square(boxes[["x1", "y1", "x2", "y2"]].to_numpy(np.float64), sizes, card.preprocessing),
    )
    return BoxedRows(open_packed(packed_images(card.input_size)), rows, truths, len(card.classes))


def in_square(xyxy: NDArray[np.float64], sizes: NDArray[np.int64], preprocessing: Preprocessing) -> NDArray[np.float64]:
    """Return boxes in pixels of the model's input. xyxy: (n, 4), in pixels of images; sizes: (n, 2), of those."""
    placed = [
        placement(int(width), int(height), preprocessing.input_size, preprocessing.fit).to_input(box[None])
        for box, (width, height) in zip(xyxy, sizes, strict=True)
    ]
    return np.concatenate(placed) if placed else np.empty((0, 4))
