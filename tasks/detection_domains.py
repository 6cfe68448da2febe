"""Leaving a domain out where images have boxes: how a detector is trained for it, and what it finds in a domain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kinglet.evidence.image_bootstrap import DrawnScores
from kinglet.training.epochs import Recipe
from tasks.artifacts import BOXES, packed_images, read_input_sizes
from tasks.detection_answers import detector_of, find_objects, read_boxed
from tasks.detection_scores import HEADLINE, draw_objects
from tasks.detection_training import (
    SHORT_BUDGET,
    boxed_images,
    detector_recipe,
    fine_tuned_detector,
    refuse_without_boxes,
)
from tasks.domain_run import DomainRun
from tasks.found_objects import Found

# Part of what a problem brings to the step.
from tasks.found_objects import together as together
from tasks.image_scores import seen_and_unseen
from tasks.models import read_classes, served
from tasks.parameters import Parameters


def recipe_for(parameters: Parameters, n_training: int) -> Recipe:
    """Return how every one of the detectors is trained. n_training: images of all domains."""
    settings = parameters.finetune.model_copy(update={"epochs": parameters.domains.epochs})
    return detector_recipe(settings, read_input_sizes().teacher, n_training, parameters.seed, SHORT_BUDGET)


def files_learnt_from() -> list[Path]:
    """Return what decides a training beside the manifest."""
    return [packed_images(read_input_sizes().teacher), BOXES]


def answers_of(run: DomainRun[Recipe], tests: list[pd.DataFrame]) -> list[Found]:
    """Train a detector; return what it finds in the images of each of `tests`, rows of the manifest.

    Raises KingletError if the images that it learns from show no object.
    """
    classes, size, fit = read_classes(), read_input_sizes().teacher, run.parameters.data.fit
    training, validation = (boxed_images(run.images, split, size, fit, classes) for split in ("train", "validation"))
    refuse_without_boxes({"training": training, "validation": validation})
    network, _ = fine_tuned_detector(
        run.parameters.finetune, training, validation, len(classes), run.recipe, run.checkpoint, run.report
    )
    detector = detector_of(served(network, size, training.packed.shape[3], classes, run.parameters))
    images, answers = read_boxed("test", classes), []
    for test in tests:
        own = images.take(np.flatnonzero(np.isin(images.rows, test["index"])))
        found = find_objects(detector, own, "The detector", lambda done, total: run.report(done, total, "answers"))
        answers.append(Found(own.truths, found, len(own)))
    return answers


def scores_of(seen: Found, unseen: Found, parameters: Parameters) -> dict[str, Any]:
    """Return mAP50 by detectors that saw an image's domain and that did not, and the paired change, JSON-ready."""
    of_seen, of_unseen = (draw(answers, parameters) for answers in (seen, unseen))
    is_same = unseen.found.is_same(seen.found)
    return {"n": seen.n_images, **seen_and_unseen(of_seen, of_unseen, is_same, HEADLINE, parameters.evaluate)}


def draw(answers: Found, parameters: Parameters) -> DrawnScores:
    """Return the scores over the images and over resamples of them, the same ones for every detector."""
    n_classes, settings = len(read_classes()), parameters.evaluate
    return draw_objects(answers.truths, answers.found, answers.n_images, n_classes, settings, parameters.seed)
