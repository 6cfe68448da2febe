"""Leaving a domain out where videos have classes: how a network over clips is trained for it, and what it is right
about.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kinglet.data.batches import images_in_a_row, open_packed
from kinglet.runtime.processors import available_processors
from tasks.artifacts import packed_clips, read_input_sizes
from tasks.class_domains import HEADLINE, Answers, scores_of, together
from tasks.clip_folds import BUDGET, probabilities_of, shortened
from tasks.clip_training import ClipRecipe, clip_recipe, fine_tuned_clips, forget_places
from tasks.domain_run import DomainRun
from tasks.models import image_set, read_classes
from tasks.parameters import Parameters

# What is answered are classes, here and for images.
__all__ = ["HEADLINE", "answers_of", "files_learnt_from", "recipe_for", "scores_of", "together"]


def recipe_for(parameters: Parameters, n_training: int) -> ClipRecipe:
    """Return how every one of the networks is trained, as long as a fold. n_training: clips of all domains."""
    settings, size = shortened(parameters.finetune, parameters.domains.epochs), read_input_sizes().teacher
    n_frames = images_in_a_row(open_packed(packed_clips(size)))
    return clip_recipe(settings, parameters.recurrent, n_training, n_frames, size, parameters.seed, BUDGET)


def files_learnt_from() -> list[Path]:
    """Return what decides a training beside the manifest."""
    return [packed_clips(read_input_sizes().teacher)]


def answers_of(run: DomainRun[ClipRecipe], tests: list[pd.DataFrame]) -> list[Answers]:
    """Train a network; return whether it is right about the clips of each of `tests`, rows of the manifest."""
    size, parameters = read_input_sizes().teacher, run.parameters
    training, validation = (image_set(run.images, split, [size], packed_clips) for split in ("train", "validation"))
    network, _, checkpoints = fine_tuned_clips(
        parameters.finetune,
        training,
        validation,
        len(read_classes()),
        size,
        run.recipe,
        run.checkpoint_of,
        run.report,
    )
    forget_places(checkpoints[0])
    clips = [image_set(test, "test", [size], packed_clips) for test in tests]
    found = probabilities_of(network, clips, size, parameters.data.fit, available_processors(), run.report)
    return [Answers.to(of_test.labels, answered) for of_test, answered in zip(clips, found, strict=True)]
