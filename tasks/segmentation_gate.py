"""What the gate judges a segmenter by: its masks of the test images, by its mIoU."""

from __future__ import annotations

from typing import Any

import numpy as np

from kinglet.atomic import read_json
from kinglet.evidence.image_gate import MIOU
from kinglet.evidence.segmentation_scores import MaskCounts
from kinglet.runtime.segmentation import Mask
from kinglet.runtime.segmentation_predictor import SegmentationPredictor
from tasks.artifacts import BUNDLE, SPLIT
from tasks.gate_policy import golden_check_of
from tasks.image_gate import Judged, judge_model
from tasks.parameters import Parameters
from tasks.segmentation_answers import (
    OpenedSegmenter,
    count_answers,
    open_file,
    read_counts,
    read_masked,
)
from tasks.segmentation_evaluate import draw
from tasks.true_masks import MaskedImages


def judge_segmenter(parameters: Parameters) -> dict[str, Any]:
    """Return the content of verdict.json.

    Raises KingletError if the bundle is damaged, or holds another model than was chosen.
    """
    classes = read_json(SPLIT / "classes.json")
    images = read_masked("test")
    judged = Judged(
        headline=MIOU,
        classes=classes,
        n_images=images.n_wholes,
        open=open_file,
        read=lambda name: read_counts([name], images, "test", len(classes))[name],
        answer=lambda champion: counts_of_champion(champion, images, classes),
        draw=lambda counts: draw(counts, images, parameters.evaluate, parameters.seed),
        is_same=MaskCounts.is_same,
        golden=lambda: golden_check_of(SegmentationPredictor(BUNDLE, threads=1)),
    )
    return judge_model(judged, parameters)


def counts_of_champion(champion: OpenedSegmenter, images: MaskedImages, classes: list[str]) -> MaskCounts:
    """Return what the champion's masks are worth, its classes numbered as this run's."""
    number = np.array([classes.index(label) for label in champion.classes], np.uint8)

    def relabel(mask: Mask) -> Mask:
        return number[mask]

    return count_answers(champion, images, len(classes), "the champion", relabel=relabel)
