"""What a server of a detector answers: the objects in every image, in the image's own pixels, the surest first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError
from kinglet.runtime.detection import DETECTOR_OUTPUTS, apart
from kinglet.runtime.detection_predictor import DetectionPredictor
from kinglet.serving.class_answers import PROBABILITY
from kinglet.serving.inference import Answer
from kinglet.serving.refusals import RefusedError
from kinglet.serving.served_model import ServedModel


def does(classes: Sequence[str]) -> str:
    """Return what the model does, as the predicate of a sentence."""
    return f"Finds objects of {len(classes)} {'class' if len(classes) == 1 else 'classes'} in an image"


def read_query(query: bytes) -> float | None:
    """Return the lowest score that is asked for, None for the bundle's; raises RefusedError for what is none."""
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("score")
    if not values:
        return None
    try:
        score = float(values[-1])
    except ValueError:
        score = math.nan
    if not 0 <= score <= 1:
        raise RefusedError(
            "bad_request", f"score is {values[-1][:40]!r}; it is the lowest score of an object, from 0 to 1."
        )
    return score


def predictions(model: ServedModel, answer: Answer, score: float | None) -> list[dict[str, Any]]:
    """Return the answer to every image, without its facts."""
    detector = detector_of(model)
    thresholds = detector.thresholds if score is None else replace(detector.thresholds, score=score)
    placements = [detector.placement(facts.width, facts.height) for facts in answer.images]
    return [
        {
            "objects": [
                {
                    "label": detector.classes[label],
                    "score": round(score, 6),
                    "box": [round(corner, 2) for corner in box],
                }
                for label, score, box in zip(
                    found.labels.tolist(), found.scores.tolist(), found.xyxy.tolist(), strict=True
                )
            ]
        }
        for found in thresholds.decode(answer.outputs, placements)
    ]


def detector_of(model: ServedModel) -> DetectionPredictor:
    """Return the predictor of a model that is a detector."""
    if not isinstance(model.predictor, DetectionPredictor):
        raise KingletError(f"{model.name} is no detector.")
    return model.predictor


def tensors(outputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return what the model gives, by the names of the Open Inference Protocol."""
    return dict(zip(DETECTOR_OUTPUTS, apart(outputs), strict=True))


def shapes(model: ServedModel) -> dict[str, list[int]]:
    """Return the shapes of `tensors`, -1 for the batch and for the places, which follow from the model."""
    return dict(zip(DETECTOR_OUTPUTS, ([-1, -1, len(model.predictor.classes)], [-1, -1, 4]), strict=True))


def parameters() -> list[dict[str, Any]]:
    """Return what /predict may be asked beside the image, for the OpenAPI document."""
    only = {
        "name": "score",
        "in": "query",
        "description": "The lowest score of an object that is answered; without it, that of the bundle.",
        "schema": PROBABILITY,
    }
    return [only]


def prediction_schema(model: ServedModel) -> dict[str, Any]:
    """Return the fields of one prediction, without the image's facts, for the OpenAPI document."""
    box = {
        "type": "array",
        "items": {"type": "number", "minimum": 0},
        "minItems": 4,
        "maxItems": 4,
        "description": "Left, top, right and bottom in pixels of the image, turned as its EXIF data say.",
    }
    each = {"label": {"type": "string", "enum": model.predictor.classes}, "score": PROBABILITY, "box": box}
    found = {"type": "object", "properties": each, "required": list(each)}
    most = detector_of(model).thresholds.most
    return {"objects": {"type": "array", "items": found, "maxItems": most}}
