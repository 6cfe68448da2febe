"""What also runs without torch: decoding, preprocessing, ONNX Runtime sessions, measuring, and the predictors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinglet.runtime.clips import ClipPredictor
    from kinglet.runtime.detection_predictor import DetectionPredictor
    from kinglet.runtime.predictor import Predictor
    from kinglet.runtime.predictors import open_predictor
    from kinglet.runtime.segmentation_predictor import SegmentationPredictor

__all__ = ["ClipPredictor", "DetectionPredictor", "Predictor", "SegmentationPredictor", "open_predictor"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: decoding alone, in a process that only packs images, needs no onnxruntime.
    if name == "Predictor":
        from kinglet.runtime.predictor import Predictor

        return Predictor
    if name == "DetectionPredictor":
        from kinglet.runtime.detection_predictor import DetectionPredictor

        return DetectionPredictor
    if name == "SegmentationPredictor":
        from kinglet.runtime.segmentation_predictor import SegmentationPredictor

        return SegmentationPredictor
    if name == "ClipPredictor":
        from kinglet.runtime.clips import ClipPredictor

        return ClipPredictor
    if name == "open_predictor":
        from kinglet.runtime.predictors import open_predictor

        return open_predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
