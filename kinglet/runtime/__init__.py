"""What also runs without torch: decoding, preprocessing, ONNX Runtime sessions, measuring, and `Predictor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinglet.runtime.predictor import Predictor

__all__ = ["Predictor"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: decoding alone, in a process that only packs images, needs no onnxruntime.
    if name == "Predictor":
        from kinglet.runtime.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
