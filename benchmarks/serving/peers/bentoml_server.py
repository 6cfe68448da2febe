"""BentoML serving the ONNX file of a bundle: JPEG in, class out, one worker, no batching."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bentoml

from benchmarks.serving.bare_loop import classify, open_bundle


@bentoml.service(workers=1, traffic={"timeout": 30})
class Classifier:
    """Takes the bytes of an image as the body."""

    def __init__(self) -> None:
        self.opened = open_bundle(Path(os.environ["BENCHMARK_BUNDLE"]))

    @bentoml.api(route="/predict")
    def predict(self, content: Path, /) -> dict[str, Any]:
        """Return class and probability."""
        name, probability = classify(content.read_bytes(), *self.opened)
        return {"class": name, "confidence": probability}
