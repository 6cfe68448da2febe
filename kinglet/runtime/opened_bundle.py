"""A bundle opened for prediction: its files checked, the one for this processor chosen, its model loaded."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.engines import ONNXRUNTIME, RUNTIMES, Engine, open_engine
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.vnni import products_saturate

logger = logging.getLogger(__name__)

# What opens the bundle of a problem.
PREDICTORS = {
    bundles.CLASSIFICATION: "Predictor",
    bundles.DETECTION: "DetectionPredictor",
    bundles.SEGMENTATION: "SegmentationPredictor",
    bundles.VIDEO: "ClipPredictor",
}


@dataclass(frozen=True)
class OpenedBundle:
    """What a predictor needs of a bundle.

    facts: the content of preprocessing.json. model_file: which file was opened. saturates: whether this processor is
    x86 without VNNI.
    """

    engine: Engine
    preprocessing: Preprocessing
    classes: list[str]
    facts: dict[str, Any]
    runtime: str
    model_file: str
    saturates: bool


def open_bundle(folder: Path, threads: int | None, saturates: bool | None, problem: str) -> OpenedBundle:
    """Return the bundle in a folder, opened.

    threads: processors that one prediction may use; None takes every one that is granted. saturates: None asks the
    processor. problem: the one that the caller is for.
    Raises KingletError that names the file if one is missing, damaged or not what the checksums say, the runtime if it
    is not installed, or what opens the bundle if it is of another problem.
    """
    files = bundles.verify(folder)
    found = bundles.problem_of(folder)
    if found != problem:
        raise KingletError(
            f"{folder} is a bundle for {found}, not for {problem}.",
            f"Open it with kinglet.runtime.{PREDICTORS[found]}; kinglet.runtime.open_predictor opens all.",
        )
    runtime = bundles.runtime_of(folder)
    saturates = products_saturate() if saturates is None else saturates
    has_other = runtime == ONNXRUNTIME and bundles.WITHOUT_VNNI in files
    model_file = bundles.WITHOUT_VNNI if saturates and has_other else RUNTIMES[runtime].files[0]
    kind = "x86 without VNNI, or one that does not tell" if saturates else "one that adds 8-bit products exactly"
    if runtime == ONNXRUNTIME:
        logger.info("Opening %s: this processor is %s.", folder / model_file, kind)
    else:
        logger.info("Opening %s with %s.", folder / model_file, RUNTIMES[runtime].title)
    classes: list[str] = list(json.loads((folder / bundles.LABELS).read_text(encoding="utf-8")))
    facts = bundles.facts_of(folder)
    preprocessing = Preprocessing.from_dict(facts)
    size = preprocessing.input_size
    engine = open_engine(runtime, folder / model_file, (preprocessing.channels, size, size), threads)
    if engine.takes_pixels != preprocessing.takes_pixels:
        raise KingletError(
            f"{folder / model_file} takes {'pixels' if engine.takes_pixels else 'normalized floats'}, and "
            f"{bundles.PREPROCESSING} says otherwise.",
            "The files of the bundle are not of one model: make it anew with `dvc repro bundle`.",
        )
    return OpenedBundle(engine, preprocessing, classes, facts, runtime, model_file, saturates)
