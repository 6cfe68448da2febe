"""One fold of the cross-validation: fine-tune on the other folds, answer the images of this one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kinglet.reporting import Report
from kinglet.runtime.sessions import gather_logits, softmax
from kinglet.runtime.sessions import run as run_session
from kinglet.training.devices import training_threads
from kinglet.training.loop import ImageSet
from kinglet.training.schedules import EpochBudget
from tasks.artifacts import InputSizes, packed_images, read_input_sizes
from tasks.clip_folds import answer_clips
from tasks.detection_folds import answer_boxes
from tasks.finetune import fine_tuned, phases_of, recipe_of
from tasks.fold_run import HELD_OUT, TRAINING, VALIDATION, FoldRun, images_of_parts, write_predictions
from tasks.models import channels_of, image_set, prepare_training, preprocessing_of, read_classes, served
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.segmentation_folds import answer_masks
from tasks.settings_section import AUTO
from tasks.stage import run_stage
from tasks.training_settings import Crossvalidate, Finetune

# What a fold may cost where nobody says its epochs: pixels that are learnt from, and those that are answered, which
# cost a fifth of that (one thread, 48 px: 267 images/s learnt, 1,390 answered).
PIXELS = 20e6
COST_OF_AN_ANSWER = 0.2
FEWEST_EPOCHS, MOST_EPOCHS = 0.1, 30


def run(parameters: Parameters, repeat: int, fold: int) -> None:
    """Write predictions.parquet and fold.json into the folder of a fold.

    Raises KingletError if the folds were not assigned with the settings of now.
    """
    seed = parameters.seed + 1000 * repeat + fold
    prepare_training(seed)
    threads = threads_of_a_fold(parameters.crossvalidate)
    torch.set_num_threads(threads)
    ANSWERING[parameters.network](FoldRun(parameters, repeat, fold, seed, threads))


def answer_classes(given: FoldRun) -> None:
    """Train a classifier without the fold, and write its probabilities for the fold's images."""
    parameters, settings = given.parameters, given.parameters.finetune
    classes, sizes = read_classes(), read_input_sizes()
    held_out, training, validation = parts_of(given.repeat, given.fold, sizes)
    phases = phases_of_a_fold(settings, parameters.crossvalidate, sizes, len(training.rows), len(held_out.rows))
    recipe = recipe_of(settings, phases, given.seed)
    checkpoint = given.checkpoint(recipe, [packed_images(sizes.teacher)])
    with progress(given.title) as report:
        network, history = fine_tuned(
            settings, training, validation, len(classes), recipe, sizes.low_resolution, checkpoint, report
        )
        probabilities = answers_of(network, held_out, sizes.teacher, classes, parameters, given.threads, report)
    write_predictions(given.folder / "predictions.parquet", held_out, probabilities)
    given.keep_facts(
        n=len(held_out.rows),
        n_training=len(training.rows),
        n_validation=len(validation.rows),
        phases=recipe.phases,
        history=history,
    )
    checkpoint.clear()


def threads_of_a_fold(settings: Crossvalidate) -> int:
    """Return how many threads one of the folds takes, which the flow runs side by side."""
    return training_threads(max(1, len(settings.folds) * len(settings.repeats)))


def parts_of(repeat: int, fold: int, sizes: InputSizes) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Return the images of the fold, and of the others those to learn from and those that say when it is best."""
    images, edges = images_of_parts(repeat, fold), {sizes.teacher, sizes.low_resolution}
    held_out, training, validation = (image_set(images, part, edges) for part in (HELD_OUT, TRAINING, VALIDATION))
    return held_out, training, validation


def phases_of_a_fold(
    settings: Finetune, folds: Crossvalidate, sizes: InputSizes, n_training: int, n_held_out: int
) -> tuple[tuple[float, int], ...]:
    """Return the parts of a fold's training, as short as the budget wants where its epochs are "auto"."""
    of_answers = COST_OF_AN_ANSWER * n_held_out * sizes.teacher**2
    budget = EpochBudget(max(PIXELS - of_answers, 1), FEWEST_EPOCHS, MOST_EPOCHS)
    epochs = folds.epochs if folds.epochs != AUTO else AUTO
    return phases_of(settings.model_copy(update={"epochs": epochs}), sizes, n_training, budget)


def answers_of(
    network: nn.Module,
    images: ImageSet,
    input_size: int,
    classes: list[str],
    parameters: Parameters,
    threads: int,
    report: Report,
) -> NDArray[np.float32]:
    """Return the probabilities of all images, float32 (n, n_classes), by the network's ONNX file as it is served."""
    channels = channels_of(images)
    session = served(network, input_size, channels, classes, parameters)
    logits = gather_logits(
        partial(run_session, session),
        len(classes),
        images.packed[input_size],
        images.rows,
        preprocessing_of(input_size, channels, parameters),
        workers=threads,
        report=lambda done, total: report(done, total, "answers"),
    )
    return softmax(logits)


# What a fold leaves, by the problem.
ANSWERING: dict[str, Callable[[FoldRun], None]] = {
    "classification": answer_classes,
    "detection": answer_boxes,
    "segmentation": answer_masks,
    "video": answer_clips,
}


if __name__ == "__main__":
    run_stage(partial(run, repeat=int(sys.argv[1]), fold=int(sys.argv[2])))
