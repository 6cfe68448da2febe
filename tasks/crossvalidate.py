"""One fold of the cross-validation: fine-tune on the other folds, answer the images of this one."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import torch
from numpy.typing import NDArray
from torch import nn

from kinglet.atomic import atomic_path, write_json
from kinglet.errors import KingletError
from kinglet.models.export import to_onnx
from kinglet.models.registry import normalization
from kinglet.reporting import Report
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import gather_logits, open_session, softmax
from kinglet.runtime.sessions import run as run_session
from kinglet.training.loop import ImageSet
from kinglet.training.schedules import EpochBudget
from tasks.artifacts import FOLDS, InputSizes, fold_folder, packed_images, read_input_sizes
from tasks.finetune import fine_tuned, phases_of, recipe_of
from tasks.models import channels_of, image_set, open_checkpoint, prepare_training, read_classes, read_manifest
from tasks.parameters import AUTO, Crossvalidate, Finetune, Parameters
from tasks.progress import progress
from tasks.stage import run_stage

# What a fold may cost where nobody says its epochs: pixels that are learnt from, and those that are answered, which
# cost a fifth of that (one thread, 48 px: 267 images/s learnt, 1,390 answered).
PIXELS = 20e6
COST_OF_AN_ANSWER = 0.2
FEWEST_EPOCHS, MOST_EPOCHS = 0.1, 30
# Training images that say which epoch's weights are kept. The images of the fold itself must not.
VALIDATION_SHARE, MOST_VALIDATION_IMAGES = 0.1, 1000


def run(parameters: Parameters, repeat: int, fold: int) -> None:
    """Write predictions.parquet and fold.json into the folder of a fold.

    Raises KingletError if the folds were not assigned with the settings of now.
    """
    settings, seed = parameters.finetune, parameters.seed + 1000 * repeat + fold
    prepare_training(seed)
    threads = threads_of_a_fold(parameters.crossvalidate)
    torch.set_num_threads(threads)
    classes, sizes = read_classes(), read_input_sizes()
    held_out, training, validation = parts_of(repeat, fold, sizes)
    phases = phases_of_a_fold(settings, parameters.crossvalidate, sizes, len(training.rows), len(held_out.rows))
    recipe = recipe_of(settings, phases, seed)
    checkpoint = open_checkpoint(
        f"crossvalidate-{repeat}-{fold}",
        {"finetune": settings.model_dump(), "recipe": asdict(recipe), "threads": threads},
        [packed_images(sizes.teacher), FOLDS],
    )
    with progress(f"fold {fold}" if len(parameters.crossvalidate.repeats) == 1 else f"fold {repeat}-{fold}") as report:
        network, history = fine_tuned(
            settings, training, validation, len(classes), recipe, sizes.low_resolution, checkpoint, report
        )
        probabilities = answers_of(network, held_out, sizes.teacher, parameters.data.fit, len(classes), threads, report)
    folder = fold_folder(repeat, fold)
    write_predictions(folder / "predictions.parquet", held_out, probabilities)
    facts = {
        "n": len(held_out.rows),
        "n_training": len(training.rows),
        "n_validation": len(validation.rows),
        "epochs": round(sum(epochs for epochs, _ in phases), 2),
        "history": history,
    }
    write_json(folder / "fold.json", facts)
    checkpoint.clear()


def threads_of_a_fold(settings: Crossvalidate) -> int:
    """Return how many threads one of the folds takes, which the flow runs side by side."""
    return max(1, available_processors() // max(1, len(settings.folds) * len(settings.repeats)))


def parts_of(repeat: int, fold: int, sizes: InputSizes) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Return the images of the fold, and of the others those to learn from and those that say when it is best."""
    plan = pd.read_parquet(FOLDS)
    plan = plan[plan["repeat"] == repeat]
    if fold not in set(plan["fold"]):
        raise KingletError(f"{FOLDS} holds no fold {fold} of repetition {repeat}.", "Run `dvc repro`.")
    images = read_manifest().merge(plan, on="index")
    others = images[images["fold"] != fold]
    share = min(VALIDATION_SHARE, MOST_VALIDATION_IMAGES / len(others))
    # One set that belongs together at the least.
    limit = max(share, others["draw"].min() + np.finfo(float).eps)
    for part, chosen in (
        ("held out", images["fold"] == fold),
        ("validation", (images["fold"] != fold) & (images["draw"] < limit)),
        ("train", (images["fold"] != fold) & (images["draw"] >= limit)),
    ):
        images.loc[chosen, "split"] = part
    if not (images["split"] == "train").any():
        raise KingletError(
            f"Fold {fold} of the cross-validation leaves no image to learn from: all others belong together.",
            "Name no folds in crossvalidate.folds ([]), or add images that belong to no group.",
        )
    edges = {sizes.teacher, sizes.low_resolution}
    held_out, training, validation = (image_set(images, part, edges) for part in ("held out", "train", "validation"))
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
    fit: str,
    n_classes: int,
    threads: int,
    report: Report,
) -> NDArray[np.float32]:
    """Return the probabilities of all images, float32 (n, n_classes), by the network's ONNX file as it is served."""
    channels = channels_of(images)
    mean, std = normalization(channels)
    preprocessing = Preprocessing(input_size, channels, fit, tuple(mean), tuple(std))
    model = to_onnx(network.cpu().eval(), input_size, channels, {"preprocessing": preprocessing.to_dict()})
    session = open_session(model.SerializeToString(), threads=1)
    logits = gather_logits(
        partial(run_session, session),
        n_classes,
        images.packed[input_size],
        images.rows,
        preprocessing,
        workers=threads,
        report=lambda done, total: report(done, total, "answers"),
    )
    return softmax(logits)


def write_predictions(path: Path, images: ImageSet, probabilities: NDArray[np.float32]) -> None:
    """Write one row for every image: index, label and probabilities."""
    columns = {
        "index": images.rows,
        "label": images.labels,
        "probabilities": pa.FixedSizeListArray.from_arrays(probabilities.ravel(), probabilities.shape[1]),
    }
    with atomic_path(path) as temporary:
        pa.parquet.write_table(pa.table(columns), temporary, compression="zstd")


if __name__ == "__main__":
    run_stage(partial(run, repeat=int(sys.argv[1]), fold=int(sys.argv[2])))
