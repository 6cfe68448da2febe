"""The predictor of any bundle: what a model answers with, its bundle says."""

from __future__ import annotations

from pathlib import Path

from kinglet.runtime import bundles
from kinglet.runtime.clips import ClipPredictor
from kinglet.runtime.detection_predictor import DetectionPredictor
from kinglet.runtime.predictor import Predictor
from kinglet.runtime.segmentation_predictor import SegmentationPredictor

AnyPredictor = Predictor | DetectionPredictor | SegmentationPredictor | ClipPredictor
PREDICTORS: dict[
    str, type[Predictor] | type[DetectionPredictor] | type[SegmentationPredictor] | type[ClipPredictor]
] = {
    bundles.CLASSIFICATION: Predictor,
    bundles.DETECTION: DetectionPredictor,
    bundles.SEGMENTATION: SegmentationPredictor,
    bundles.VIDEO: ClipPredictor,
}


def open_predictor(bundle: Path | str, threads: int | None = None, saturates: bool | None = None) -> AnyPredictor:
    """Return the predictor of a bundle, opened; threads and saturates as for `Predictor`.

    Raises KingletError if the bundle cannot be used, or is of a problem that this version of Kinglet does not know.
    """
    bundles.verify(Path(bundle))
    return PREDICTORS[bundles.problem_of(Path(bundle))](bundle, threads, saturates)
