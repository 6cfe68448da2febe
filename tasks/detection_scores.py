"""What the boxes that a detector found are worth, with intervals over images: as every step counts it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.detection_intervals import draw_scores
from kinglet.evidence.detection_matches import Objects, match_objects
from kinglet.evidence.image_bootstrap import DrawnScores
from kinglet.evidence.image_gate import MAP_50
from kinglet.runtime.detection import SHOWN_FROM
from tasks.detection_answers import BoxedImages
from tasks.evidence_settings import Evaluate
from tasks.image_scores import json_interval, read_intervals
from tasks.parameters import Parameters

# What models are chosen by.
HEADLINE = MAP_50.name


def draw(images: BoxedImages, found: Objects, n_classes: int, settings: Evaluate, seed: int) -> DrawnScores:
    """Return a model's scores over the images and over resamples of them, the same ones for every model."""
    return draw_objects(images.truths, found, len(images), n_classes, settings, seed)


def draw_objects(
    truths: Objects, found: Objects, n_images: int, n_classes: int, settings: Evaluate, seed: int
) -> DrawnScores:
    """Return the same of objects that count n_images images."""
    matches = match_objects(truths, found, n_images, n_classes)
    return draw_scores(matches, SHOWN_FROM, method=settings.interval, seed=seed)


def headline_at(
    places: NDArray[np.int64], images: BoxedImages, found: Objects, n_classes: int, parameters: Parameters
) -> dict[str, float] | None:
    """Return a model's HEADLINE on some of the images with its interval, None where they show no object."""
    number = np.full(len(images), -1)
    number[places] = np.arange(len(places))
    own = number[found.images]
    of_places = replace(found.take(own >= 0), images=own[own >= 0])
    drawn = draw(images.take(places), of_places, n_classes, parameters.evaluate, parameters.seed)
    return json_interval(read_intervals(drawn, parameters.evaluate).overall[HEADLINE])
