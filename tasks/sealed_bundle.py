"""What lies beside the model in every bundle, written last, and the bundle opened once to prove that it works."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kinglet.atomic import write_bytes, write_json, write_text
from kinglet.runtime import bundles
from kinglet.runtime.engines import ONNXRUNTIME
from kinglet.runtime.predictors import open_predictor
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.sketches import Reference


def seal_and_open(
    bundle: Path,
    preprocessing: Preprocessing,
    classes: list[str],
    golden: dict[str, NDArray[Any]],
    text: str,
    *,
    problem: str = bundles.CLASSIFICATION,
    runtime: str = ONNXRUNTIME,
    further: Mapping[str, Any] | None = None,
    reference: Reference | None = None,
) -> None:
    """Write what lies beside a bundle's model, the checksums last, and hold the bundle to its golden answers.

    golden: the arrays of golden.npz. text: the model card. further: what preprocessing.json says besides the usual.
    reference: what monitoring compares with; without one the bundle cannot be monitored.
    """
    facts = {
        **preprocessing.to_dict(),
        bundles.RUNTIME: runtime,
        bundles.FORMAT_KEY: bundles.format_of(preprocessing, problem),
        # A file that says nothing of it is a classifier's.
        **({} if problem == bundles.CLASSIFICATION else {bundles.PROBLEM: problem}),
        **(further or {}),
    }
    write_json(bundle / bundles.PREPROCESSING, facts)
    write_json(bundle / bundles.LABELS, classes)
    write_bytes(bundle / bundles.GOLDEN, bundles.npz_bytes(golden))
    write_text(bundle / bundles.CARD, text)
    if reference is not None:
        # On one line: thousands of numbers are for programs.
        write_text(bundle / bundles.REFERENCE, json.dumps(reference.to_dict(), allow_nan=False) + "\n")
    bundles.seal(bundle)
    open_predictor(bundle, threads=1).check_golden(bundle / bundles.GOLDEN)
