"""Leaving a domain out where images have masks: how a segmenter is trained for it, and what it answers to a domain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kinglet.evidence.image_gate import MIOU
from kinglet.evidence.segmentation_scores import MaskCounts, draw_masks
from kinglet.training.epochs import Recipe
from tasks.artifacts import packed_images, packed_masks, read_input_sizes
from tasks.domain_run import DomainRun
from tasks.image_scores import seen_and_unseen
from tasks.models import read_classes, served
from tasks.parameters import Parameters
from tasks.segmentation_answers import count_answers, read_masked, segmenter_of
from tasks.segmentation_folds import FOLD_BUDGET
from tasks.segmentation_training import fine_tuned_segmenter, masked_images, refuse_without_classes, segmenter_recipe

HEADLINE = MIOU.name


def recipe_for(parameters: Parameters, n_training: int) -> Recipe:
    """Return how every one of the segmenters is trained, as long as a fold. n_training: images of all domains."""
    settings = parameters.finetune.model_copy(update={"epochs": parameters.domains.epochs})
    return segmenter_recipe(settings, read_input_sizes().teacher, n_training, parameters.seed, FOLD_BUDGET)


def files_learnt_from() -> list[Path]:
    """Return what decides a training beside the manifest."""
    size = read_input_sizes().teacher
    return [packed_images(size), packed_masks(size)]


def answers_of(run: DomainRun[Recipe], tests: list[pd.DataFrame]) -> list[MaskCounts]:
    """Train a segmenter; return what its masks of the images of each of `tests`, rows of the manifest, are worth.

    Tiles of one image are no independent examples: counted are whole images.
    Raises KingletError if no pixel that it learns from has a class.
    """
    classes, size = read_classes(), read_input_sizes().teacher
    training, validation = (masked_images(run.images, split, size) for split in ("train", "validation"))
    refuse_without_classes({"training": training, "validation": validation}, len(classes))
    network, _ = fine_tuned_segmenter(
        run.parameters.finetune, training, validation, len(classes), run.recipe, run.checkpoint, run.report
    )
    segmenter = segmenter_of(served(network, size, training.packed.shape[3], classes, run.parameters))
    images, answers = read_masked("test"), []

    def report(done: float, total: float) -> None:
        run.report(done, total, "answers")

    for test in tests:
        own = images.take(np.flatnonzero(np.isin(images.rows, test["index"])))
        answers.append(count_answers(segmenter, own, len(classes), "The segmenter", report).together(own.wholes))
    return answers


def together(parts: list[MaskCounts]) -> MaskCounts:
    """Return what is known of the masks of several domains, one behind the other."""
    return MaskCounts(
        np.concatenate([part.confusions for part in parts]),
        np.concatenate([part.boundaries for part in parts]),
        np.concatenate([part.digests for part in parts]),
    )


def scores_of(seen: MaskCounts, unseen: MaskCounts, parameters: Parameters) -> dict[str, Any]:
    """Return mIoU by segmenters that saw an image's domain and that did not, and the paired change, JSON-ready."""
    settings = parameters.evaluate
    of_seen, of_unseen = (
        draw_masks(counts, method=settings.interval, seed=parameters.seed) for counts in (seen, unseen)
    )
    return {"n": len(seen), **seen_and_unseen(of_seen, of_unseen, unseen.is_same(seen), HEADLINE, settings)}
