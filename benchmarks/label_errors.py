"""How many labels that were flipped on purpose the search for label errors finds.

What: the share of flipped labels that are listed, and the share of the list that was flipped.
How: of the training and validation images of a finished run, some are drawn, and a share of their labels is set to
another class, drawn evenly. Every fold is trained and answered as the step `crossvalidate` does it, and the list of
the step `label_errors` is compared with what was flipped. The data set's own wrong labels count as false.

    .venv/bin/python -m benchmarks.label_errors --checkout FOLDER --images 4500 --epochs 2

FOLDER holds a finished run; nothing in it is changed. Expected time: about a minute on 2 free cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.results import RESULTS, shown_command, write_result
from kinglet.data.folds import plan_folds
from kinglet.evidence.confident_learning import find_label_errors
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.loop import ImageSet
from tasks.artifacts import InputSizes, read_input_sizes
from tasks.crossvalidate import answers_of, phases_of_a_fold, threads_of_a_fold
from tasks.finetune import fine_tuned, recipe_of
from tasks.models import image_set, prepare_training, read_classes, read_manifest
from tasks.parameters import Parameters, load_parameters
from tasks.progress import progress
from tasks.stage import exit_code_of


def flip(labels: NDArray[np.int64], share: float, n_classes: int, seed: int) -> NDArray[np.int64]:
    """Return a copy of the labels in which this share is another class, every other one equally often."""
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(labels), round(share * len(labels)), replace=False)
    flipped = labels.copy()
    flipped[chosen] = (labels[chosen] + generator.integers(1, n_classes, len(chosen))) % n_classes
    return flipped


def out_of_fold(parameters: Parameters, images: ImageSet, sizes: InputSizes, classes: list[str]) -> NDArray[np.float32]:
    """Return the answer to every image by the model of its fold, float32 (n, n_classes)."""
    settings, folds = parameters.finetune, parameters.crossvalidate
    n = len(images.rows)
    plan = plan_folds(
        np.array([str(row) for row in images.rows], object),
        images.labels,
        np.full(n, "", object),
        np.arange(n),
        n_folds=len(folds.folds),
        repeat=1,
        seed=parameters.seed,
    )
    threads = threads_of_a_fold(folds)
    probabilities = np.zeros((n, len(classes)), np.float32)
    for fold in folds.folds:
        seed = parameters.seed + 1000 + fold
        prepare_training(seed)
        torch.set_num_threads(threads)
        held_out, watched = plan.fold == fold, (plan.fold != fold) & (plan.draw < 0.1)
        part, training, validation = (
            ImageSet(images.packed, images.rows[chosen], images.labels[chosen])
            for chosen in (held_out, ~held_out & ~watched, watched)
        )
        phases = phases_of_a_fold(settings, folds, sizes, len(training.rows), len(part.rows))
        recipe = recipe_of(settings, phases, seed)
        with tempfile.TemporaryDirectory() as folder, progress(f"fold {fold}") as report:
            network, _ = fine_tuned(
                settings,
                training,
                validation,
                len(classes),
                recipe,
                sizes.low_resolution,
                Checkpoint(Path(folder) / "state"),
                report,
            )
            probabilities[held_out] = answers_of(network, part, sizes.teacher, classes, parameters, threads, report)
    return probabilities


def measure(options: argparse.Namespace) -> None:
    """Measure and write the result."""
    home = Path.cwd()
    os.chdir(options.checkout)
    parameters = load_parameters()
    if options.epochs:
        folds = parameters.crossvalidate.model_copy(update={"epochs": options.epochs})
        parameters = parameters.model_copy(update={"crossvalidate": folds})
    sizes, classes, manifest = read_input_sizes(), read_classes(), read_manifest()
    manifest = manifest[manifest["split"] != "test"].assign(split="train")
    if options.images:
        manifest = manifest.sample(min(options.images, len(manifest)), random_state=options.seed).sort_index()
    images = image_set(manifest, "train", {sizes.teacher, sizes.low_resolution})
    labels = flip(images.labels, options.flips, len(classes), options.seed)
    probabilities = out_of_fold(parameters, ImageSet(images.packed, images.rows, labels), sizes, classes)
    os.chdir(home)
    if options.keep:
        np.savez(options.keep, labels=labels, true=images.labels, probabilities=probabilities)
    found = find_label_errors(labels, probabilities)
    is_flipped = labels != images.labels
    hits = int(is_flipped[found.rows].sum())
    path = write_result(
        options.results,
        options.name,
        command=shown_command("label_errors", sys.argv[1:]),
        repetitions=1,
        figures={
            "images": len(labels),
            "folds": len(parameters.crossvalidate.folds),
            "flipped": int(is_flipped.sum()),
            "listed": len(found.rows),
            "found": round(hits / int(is_flipped.sum()), 4),
            "precision": round(hits / max(1, len(found.rows)), 4),
            "named_right": round(float((found.likely == images.labels[found.rows])[is_flipped[found.rows]].mean()), 4),
            "estimated": round(found.estimated, 1),
            "out_of_fold_accuracy": round(float((probabilities.argmax(axis=1) == images.labels).mean()), 4),
        },
    )
    print(f"written: {path}", file=sys.stderr)


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, required=True, help="a checkout with a finished run")
    parser.add_argument("--images", type=int, default=0, help="how many are drawn; all if left out")
    parser.add_argument("--flips", type=float, default=0.05, help="share of labels that are set to another class")
    parser.add_argument("--epochs", type=float, help="of every fold; crossvalidate.epochs if left out")
    parser.add_argument("--seed", type=int, default=1, help="of the draw of images and flips")
    parser.add_argument("--name", default="label_errors", help="of the file in benchmarks/results/")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result is written")
    parser.add_argument("--keep", type=Path, help="a .npz file for labels and answers")
    options = parser.parse_args()
    return exit_code_of(lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
