"""Which of a detector's boxes are answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.detection import (
    IOU_THRESHOLD,
    MAX_DETECTIONS,
    SHOWN_FROM,
    Detections,
    apart,
    decode_detections,
)
from kinglet.runtime.preprocessing import Placement


@dataclass(frozen=True)
class Thresholds:
    """From where a detector's boxes count.

    score: the lowest, [0, 1]. iou: of two boxes of a class that overlap more, the surer one stays, [0, 1]. most: of
    an image.
    """

    score: float = SHOWN_FROM
    iou: float = IOU_THRESHOLD
    most: int = MAX_DETECTIONS

    def to_dict(self) -> dict[str, Any]:
        """Return the thresholds as JSON-ready values."""
        return asdict(self)

    def decode(self, outputs: NDArray[np.float32], placements: Sequence[Placement]) -> list[Detections]:
        """Return the objects of every image.

        outputs: logits and boxes side by side, float32 (n, places, classes + 4). placements: of the n images in the
        model's input. Raises ValueError as `decode_detections` does.
        """
        return decode_detections(
            *apart(outputs),
            placements,
            score_threshold=self.score,
            iou_threshold=self.iou,
            max_detections=self.most,
        )
