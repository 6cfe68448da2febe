"""What the gate judges a detector by: what it finds in the test images, by its mAP50."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kinglet.atomic import read_json
from kinglet.evidence.detection_matches import Objects
from kinglet.evidence.gate import NOT_JUDGED, Check
from kinglet.evidence.image_gate import MAP_50
from kinglet.runtime.detection import DETECTOR_OUTPUTS
from kinglet.runtime.sessions import open_session
from tasks.artifacts import SPLIT
from tasks.detection_answers import BoxedImages, OpenedDetector, detector_of, find_objects, read_boxed, read_found
from tasks.detection_scores import draw
from tasks.image_gate import Judged, judge_model
from tasks.parameters import Parameters


def judge_detector(parameters: Parameters) -> dict[str, Any]:
    """Return the content of verdict.json.

    Raises KingletError if the bundle is damaged, or holds another model than was chosen.
    """
    classes = read_json(SPLIT / "classes.json")
    images = read_boxed("test", classes)
    judged = Judged(
        headline=MAP_50,
        classes=classes,
        n_images=len(images),
        open=open_file,
        read=lambda name: read_found([name], images, "test")[name],
        answer=partial(found_by_champion, images=images, classes=classes),
        draw=lambda found: draw(images, found, len(classes), parameters.evaluate, parameters.seed),
        is_same=Objects.is_same,
        golden=golden,
    )
    return judge_model(judged, parameters)


def open_file(file: Path) -> OpenedDetector:
    """Return the detector of a file on one thread; raises KingletError if it is none."""
    return detector_of(open_session(file, threads=1, outputs=DETECTOR_OUTPUTS))


def golden() -> Check:
    """Return that the golden objects are not looked at."""
    return Check("golden answers", NOT_JUDGED, "The golden answers of a detector's bundle are not looked at here.")


def found_by_champion(champion: OpenedDetector, images: BoxedImages, classes: list[str]) -> Objects:
    """Return what the champion finds, its classes numbered as this run's."""
    found = find_objects(champion, images, "the champion")
    number = np.array([classes.index(label) for label in champion.classes], np.int64)
    return Objects(found.images, number[found.labels], found.xyxy, found.scores)
