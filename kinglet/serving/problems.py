"""What a server answers, by the problem that its model solves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime import bundles
from kinglet.serving import class_answers, clip_answers, mask_answers, object_answers
from kinglet.serving.inference import Answer
from kinglet.serving.served_model import ServedModel


@dataclass(frozen=True)
class Picture:
    """An answer that is a picture and no JSON.

    wanted: whether the query of /predict and the header Accept ask for it. make: its bytes. media_type: what it is.
    """

    wanted: Callable[[bytes, bytes], bool]
    make: Callable[[ServedModel, Answer], bytes]
    media_type: str


@dataclass(frozen=True)
class Problem:
    """The answers to one problem.

    does: what a model of these classes does. read_query: what the query of /predict asks for. predictions: the answers
    to the images of a request. takes_time: whether they are for a worker to make. tensors, shapes: what /v2 answers.
    parameters, prediction_schema: for the OpenAPI document. title: what the page's title says is done. answers: what
    the document calls the answer. order: how it says that they are sorted, or what comes with them. picture: the answer
    to one image that is no JSON. optional_schema: fields that only some predictions have. media_types: of bodies
    besides those of images. of_clips: whether the images of a request are the frames of one clip.
    """

    does: Callable[[Sequence[str]], str]
    read_query: Callable[[bytes], Any]
    predictions: Callable[[ServedModel, Any, Any], list[dict[str, Any]]]
    takes_time: bool
    tensors: Callable[[NDArray[np.float32]], dict[str, NDArray[np.float32]]]
    shapes: Callable[[ServedModel], dict[str, list[int]]]
    parameters: Callable[[], list[dict[str, Any]]]
    prediction_schema: Callable[[ServedModel], dict[str, Any]]
    title: str
    answers: str
    order: str
    picture: Picture | None = None
    optional_schema: Callable[[ServedModel], dict[str, Any]] = lambda _: {}
    media_types: tuple[str, ...] = ()
    of_clips: bool = False


PROBLEMS = {
    bundles.CLASSIFICATION: Problem(
        class_answers.does,
        class_answers.read_query,
        class_answers.predictions,
        False,
        class_answers.tensors,
        class_answers.shapes,
        class_answers.parameters,
        class_answers.prediction_schema,
        "classify an image",
        "classes",
        "the most probable first",
    ),
    bundles.DETECTION: Problem(
        object_answers.does,
        object_answers.read_query,
        object_answers.predictions,
        True,
        object_answers.tensors,
        object_answers.shapes,
        object_answers.parameters,
        object_answers.prediction_schema,
        "find objects in an image",
        "objects",
        "the surest first",
    ),
    bundles.SEGMENTATION: Problem(
        mask_answers.does,
        mask_answers.read_query,
        mask_answers.predictions,
        True,
        mask_answers.tensors,
        mask_answers.shapes,
        mask_answers.parameters,
        mask_answers.prediction_schema,
        "segment an image",
        "masks",
        "with the share of every class",
        Picture(mask_answers.wants_picture, mask_answers.picture, mask_answers.PNG_TYPE),
    ),
    bundles.VIDEO: Problem(
        clip_answers.does,
        clip_answers.read_query,
        clip_answers.predictions,
        True,
        class_answers.tensors,
        class_answers.shapes,
        clip_answers.parameters,
        clip_answers.prediction_schema,
        "sort a clip",
        "classes",
        "the most probable first",
        optional_schema=clip_answers.optional_schema,
        media_types=clip_answers.VIDEO_TYPES,
        of_clips=True,
    ),
}


def problem_of(model: ServedModel) -> Problem:
    """Return how a model is answered for."""
    return PROBLEMS[model.predictor.problem]
