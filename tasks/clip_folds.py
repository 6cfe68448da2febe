"""One fold of the cross-validation where videos have classes: what it trains, and its answers to its clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kinglet.data.batches import images_in_a_row
from kinglet.models.clip_classifier import ClipClassifier
from kinglet.models.registry import normalization
from kinglet.reporting import Report
from kinglet.runtime.bundles import MODEL, RECURRENT
from kinglet.runtime.engines.onnxruntime import engine_of
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.recurrence import ClipNetwork, open_recurrence
from kinglet.runtime.sessions import FEATURES_NAME, open_session, softmax
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.loop import ImageSet
from kinglet.training.schedules import EpochBudget
from tasks.artifacts import FOLDS, packed_clips, read_input_sizes
from tasks.clip_answers import gather_clip_logits
from tasks.clip_training import clip_recipe, fine_tuned_clips
from tasks.fold_run import HELD_OUT, TRAINING, VALIDATION, FoldRun, images_of_parts, write_predictions
from tasks.models import channels_of, exported, image_set, open_checkpoint, read_classes
from tasks.progress import progress
from tasks.settings_section import AUTO
from tasks.training_settings import Finetune

# A third of the teacher's.
BUDGET = EpochBudget(pixels=80e6, fewest=0.3, most=30)


def answer_clips(given: FoldRun) -> None:
    """Train a clip classifier without the fold, and write its probabilities for the fold's clips."""
    parameters, size, n_classes = given.parameters, read_input_sizes().teacher, len(read_classes())
    clips = images_of_parts(given.repeat, given.fold)
    held_out, training, validation = (
        image_set(clips, part, [size], packed_clips) for part in (HELD_OUT, TRAINING, VALIDATION)
    )
    settings = shortened(parameters.finetune, parameters.crossvalidate.epochs)
    n_frames = images_in_a_row(training.packed[size])
    recipe = clip_recipe(settings, parameters.recurrent, len(training.rows), n_frames, size, given.seed, BUDGET)
    facts = {"finetune": settings.model_dump(), "recipe": recipe.facts, "threads": given.threads}

    def checkpoint(part: str, further: dict[str, Any]) -> Checkpoint:
        files = [packed_clips(size), FOLDS]
        return open_checkpoint(f"crossvalidate-{given.name}-{part}", {**facts, **further}, files)

    with progress(given.title) as report:
        network, history, checkpoints = fine_tuned_clips(
            settings, training, validation, n_classes, size, recipe, checkpoint, report
        )
        fit, threads = parameters.data.fit, given.threads
        (probabilities,) = probabilities_of(network, [held_out], size, fit, threads, report)
    write_predictions(given.folder / "predictions.parquet", held_out, probabilities)
    given.keep_facts(
        n=len(held_out.rows),
        n_training=len(training.rows),
        n_validation=len(validation.rows),
        phases=recipe.phases,
        history=history,
    )
    for done in checkpoints:
        done.clear()


def shortened(settings: Finetune, epochs: float | Literal["auto"]) -> Finetune:
    """Return how the teacher is trained, with other epochs.

    Where those are "auto", a backbone that the teacher leaves as it is stays as it is here as well.
    """
    return settings if epochs == AUTO and settings.epochs == 0 else settings.model_copy(update={"epochs": epochs})


def probabilities_of(
    network: ClipClassifier, parts: Sequence[ImageSet], size: int, fit: str, threads: int, report: Report
) -> list[NDArray[np.float32]]:
    """Return the probabilities of the clips of each part, float32 (n, n_classes), by the network's files as served.

    size: edge of a frame in pixels. threads: clips computed side by side.
    """
    channels = channels_of(parts[0])
    mean, std = normalization(channels)
    preprocessing = Preprocessing(size, channels, fit, tuple(mean), tuple(std))
    models = exported(network, size, channels, {"preprocessing": preprocessing.to_dict()}, "video")
    frame_part = open_session(models[MODEL].SerializeToString(), threads=1, outputs=(FEATURES_NAME,))
    recurrence = open_recurrence(models[RECURRENT].SerializeToString(), threads=1)
    served = ClipNetwork(engine_of(frame_part), recurrence)

    def told(done: float, total: float) -> None:
        report(done, total, "answers")

    return [
        softmax(gather_clip_logits(served, clips.packed[size], clips.rows, preprocessing, threads, told)[:, -1])
        for clips in parts
    ]
