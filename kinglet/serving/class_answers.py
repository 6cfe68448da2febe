"""What a server of a classifier answers: the classes of every image, the most probable first."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.sessions import OUTPUT_NAME, softmax
from kinglet.serving.inference import Answer
from kinglet.serving.refusals import RefusedError
from kinglet.serving.served_model import ServedModel

DEFAULT_TOP = 5
FEW_CLASSES = 100
PROBABILITIES = "probabilities"
PROBABILITY: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}


def does(classes: Sequence[str]) -> str:
    """Return what the model does, as the predicate of a sentence."""
    return f"Sorts an image into one of {len(classes)} {'class' if len(classes) == 1 else 'classes'}"


def read_query(query: bytes) -> int:
    """Return how many classes are asked for; raises RefusedError for anything that is no positive number."""
    if not query:
        return DEFAULT_TOP
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("top", [str(DEFAULT_TOP)])
    text = values[-1]
    if not (text.isascii() and text.isdigit()) or int(text[:9]) < 1:
        raise RefusedError("bad_request", f"top is {text[:40]!r}; it is the number of classes to answer, at least 1.")
    return int(text[:9])


def predictions(model: ServedModel, answer: Answer, top: int) -> list[dict[str, Any]]:
    """Return the answer to every image, without its facts."""
    return [best_of(probabilities_of(logits), model.predictor.classes, top) for logits in answer.outputs]


def best_of(probabilities: list[float], classes: Sequence[str], top: int) -> dict[str, Any]:
    """Return the most probable classes of one row of probabilities, (n_classes,)."""
    best = [
        {"class": classes[index], "probability": round(probabilities[index], 6)}
        for index in most_probable(probabilities, top)
    ]
    return {"class": best[0]["class"], "confidence": best[0]["probability"], "top": best}


def probabilities_of(logits: NDArray[np.float32]) -> list[float]:
    """Return the probabilities of one image, as `softmax` does.

    logits: float32 (n_classes,). A few are computed in Python: numpy's functions are slow when the processor does not
    have them at hand, as after an inference (measured: 60 us of 400).
    """
    if len(logits) > FEW_CLASSES:
        probabilities: list[float] = softmax(logits).tolist()
        return probabilities
    values = logits.tolist()
    largest = max(values)
    exponentials = [math.exp(value - largest) for value in values]
    total = sum(exponentials)
    return array("f", [value / total for value in exponentials]).tolist()


def most_probable(probabilities: list[float], top: int) -> list[int]:
    """Return the indices of the `top` most probable classes, the surest first; of equals, the first."""
    if len(probabilities) <= FEW_CLASSES:
        return sorted(range(len(probabilities)), key=probabilities.__getitem__, reverse=True)[:top]
    order: list[int] = np.argsort(-np.array(probabilities), kind="stable")[:top].tolist()
    return order


def tensors(outputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return what the model gives, by the names of the Open Inference Protocol."""
    return {OUTPUT_NAME: outputs, PROBABILITIES: softmax(outputs)}


def shapes(model: ServedModel) -> dict[str, list[int]]:
    """Return the shapes of `tensors`, -1 for the batch."""
    return {name: [-1, len(model.predictor.classes)] for name in (OUTPUT_NAME, PROBABILITIES)}


def parameters() -> list[dict[str, Any]]:
    """Return what /predict may be asked beside the image, for the OpenAPI document."""
    top = {
        "name": "top",
        "in": "query",
        "description": "How many classes to answer for each image.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999, "default": DEFAULT_TOP},
    }
    return [top]


def prediction_schema(model: ServedModel) -> dict[str, Any]:
    """Return the fields of one prediction, without the image's facts, for the OpenAPI document."""
    classes = {"type": "string", "enum": model.predictor.classes}
    each = {"class": classes, "probability": PROBABILITY}
    top = {"type": "object", "properties": each, "required": list(each)}
    return {"class": classes, "confidence": PROBABILITY, "top": {"type": "array", "items": top}}
