"""Leaving a domain out where images have boxes: how a detector is trained for it, and what it finds in a domain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kinglet.evidence.detection_matches import Objects
from kinglet.evidence.image_bootstrap import DrawnScores
from kinglet.training.epochs import Recipe
from kinglet.training.schedules import EpochBudget
from tasks.artifacts import BOXES, packed_images, read_input_sizes
from tasks.detection_answers import detector_of, find_objects, read_boxed
from tasks.detection_scores import HEADLINE, draw_objects
from tasks.detection_training import boxed_images, detector_recipe, fine_tuned_detector, refuse_without_boxes
from tasks.domain_run import DomainRun
from tasks.image_scores import seen_and_unseen
from tasks.models import read_classes
from tasks.parameters import Parameters

# What a training may cost where nobody says its epochs: a third of a teacher. The pyramid and the head learn from
# nothing, so that no training is shorter than a teacher's shortest.
BUDGET = EpochBudget(pixels=570e6, fewest=8, most=150)


@dataclass(frozen=True)
class Found:
    """The objects of n_images images, and what a detector found there; `images` of both counts these images."""

    truths: Objects
    found: Objects
    n_images: int


def recipe_for(parameters: Parameters, n_training: int) -> Recipe:
    """Return how every one of the detectors is trained. n_training: images of all domains."""
    settings = parameters.finetune.model_copy(update={"epochs": parameters.domains.epochs})
    return detector_recipe(settings, read_input_sizes().teacher, n_training, parameters.seed, BUDGET)


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
    detector = detector_of(run.served(network, size, training.packed.shape[3], classes))
    images, answers = read_boxed("test", classes), []
    for test in tests:
        own = images.take(np.flatnonzero(np.isin(images.rows, test["index"])))
        found = find_objects(detector, own, "The detector", lambda done, total: run.report(done, total, "answers"))
        answers.append(Found(own.truths, found, len(own)))
    return answers


def together(parts: list[Found]) -> Found:
    """Return what was found in the images of several domains, one behind the other."""
    starts = np.cumsum([0, *(part.n_images for part in parts)])
    truths, found = (
        concatenated([replace(one, images=one.images + start) for one, start in zip(objects, starts[:-1], strict=True)])
        for objects in ([part.truths for part in parts], [part.found for part in parts])
    )
    return Found(truths, found, int(starts[-1]))


def concatenated(parts: list[Objects]) -> Objects:
    """Return the objects of several tables as one; they all have scores, or none has."""
    scores = [part.scores for part in parts if part.scores is not None]
    return Objects(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.xyxy for part in parts]),
        np.concatenate(scores) if scores else None,
    )


def scores_of(seen: Found, unseen: Found, parameters: Parameters) -> dict[str, Any]:
    """Return mAP50 by detectors that saw an image's domain and that did not, and the paired change, JSON-ready."""
    of_seen, of_unseen = (draw(answers, parameters) for answers in (seen, unseen))
    is_same = unseen.found.is_same(seen.found)
    return {"n": seen.n_images, **seen_and_unseen(of_seen, of_unseen, is_same, HEADLINE, parameters.evaluate)}


def draw(answers: Found, parameters: Parameters) -> DrawnScores:
    """Return the scores over the images and over resamples of them, the same ones for every detector."""
    n_classes, settings = len(read_classes()), parameters.evaluate
    return draw_objects(answers.truths, answers.found, answers.n_images, n_classes, settings, parameters.seed)
