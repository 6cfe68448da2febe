"""Leaving a domain out where images have classes: how a classifier is trained for it, and what it is right about.

What answers are worth is the same where clips of videos have classes (`clip_domains.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kinglet.evidence.bootstrap import accuracy_interval, paired_interval
from kinglet.runtime.processors import available_processors
from kinglet.training.loop import Recipe
from kinglet.training.schedules import EpochBudget
from tasks.artifacts import packed_images, read_input_sizes
from tasks.crossvalidate import FEWEST_EPOCHS, MOST_EPOCHS, PIXELS
from tasks.crossvalidate import answers_of as probabilities_of
from tasks.domain_run import DomainRun
from tasks.finetune import fine_tuned, phases_of, recipe_of
from tasks.models import image_set, read_classes
from tasks.parameters import Parameters

HEADLINE = "accuracy"
# What a training may cost where nobody says its epochs: as much as a fold of the cross-validation.
BUDGET = EpochBudget(PIXELS, FEWEST_EPOCHS, MOST_EPOCHS)


@dataclass(frozen=True)
class Answers:
    """Whether a classifier is right about images, bool (n,), and their labels, int64 (n,)."""

    correct: NDArray[np.bool_]
    labels: NDArray[np.int64]

    @classmethod
    def to(cls, labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> Answers:
        """Return what these probabilities, float32 (n, n_classes), are worth."""
        return cls(np.asarray(probabilities.argmax(axis=1) == labels, bool), labels)


def recipe_for(parameters: Parameters, n_training: int) -> Recipe:
    """Return how every one of the classifiers is trained. n_training: images of all domains."""
    settings = parameters.finetune.model_copy(update={"epochs": parameters.domains.epochs})
    return recipe_of(settings, phases_of(settings, read_input_sizes(), n_training, BUDGET), parameters.seed)


def files_learnt_from() -> list[Path]:
    """Return what decides a training beside the manifest."""
    return [packed_images(read_input_sizes().teacher)]


def answers_of(run: DomainRun[Recipe], tests: list[pd.DataFrame]) -> list[Answers]:
    """Train a classifier; return whether it is right about the images of each of `tests`, rows of the manifest."""
    settings, classes, sizes = run.parameters.finetune, read_classes(), read_input_sizes()
    training, validation = (
        image_set(run.images, split, {sizes.teacher, sizes.low_resolution}) for split in ("train", "validation")
    )
    network, _ = fine_tuned(
        settings, training, validation, len(classes), run.recipe, sizes.low_resolution, run.checkpoint, run.report
    )
    answers, threads = [], available_processors()
    for test in tests:
        images = image_set(test, "test", [sizes.teacher])
        found = probabilities_of(network, images, sizes.teacher, classes, run.parameters, threads, run.report)
        answers.append(Answers.to(images.labels, found))
    return answers


def together(parts: list[Answers]) -> Answers:
    """Return the answers to the images of several domains, one behind the other."""
    return Answers(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("correct", "labels")))


def scores_of(seen: Answers, unseen: Answers, parameters: Parameters) -> dict[str, Any]:
    """Return the accuracy by models that saw an image's domain and that did not, and the paired change, JSON-ready."""
    settings = parameters.evaluate
    options: dict[str, Any] = {
        "strata": seen.labels if settings.stratified else None,
        "method": settings.interval,
        "confidence": settings.confidence,
        "seed": parameters.seed,
    }
    return {
        "n": len(seen.labels),
        "seen": accuracy_interval(seen.correct, **options).to_dict(),
        "unseen": accuracy_interval(unseen.correct, **options).to_dict(),
        "change": paired_interval(unseen.correct, seen.correct, **options).to_dict(),
    }
