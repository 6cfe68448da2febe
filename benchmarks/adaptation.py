"""How much of what another camera costs is won back without labels, and with a few.

What: the accuracy of a model on images of a target domain before and after every method of adaptation, the share of
the change's cost that was won back, and the accuracy where the model came from.
How: read from what the step `adapt` of a finished run wrote; with the default settings its target domain is made out
of the data set's own images.

    .venv/bin/python -m benchmarks.adaptation --checkout FOLDER

FOLDER holds a finished run; nothing in it is changed. Expected time: a second. Where the run was not finished, but
its images are split, the demonstration can be run by itself: a student of the settings is trained from the labels of
some training images, without a teacher, and adapted as the step does it. Expected time: 2 minutes on 2 free cores.

    .venv/bin/python -m benchmarks.adaptation --checkout FOLDER --from-labels 8000 --into OTHER
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import RESULTS, shown_command, write_result
from kinglet.atomic import read_json
from kinglet.errors import KingletError
from kinglet.models.registry import normalization
from kinglet.models.residual_cnn import random_residual_cnn
from kinglet.training.devices import pick_device
from kinglet.training.loop import ImageSet, fit
from kinglet.training.losses import label_loss
from tasks.adapt import run as adapt
from tasks.artifacts import ADAPT, DISTILL, INGEST, SOURCE_FACTS, SPLIT, read_input_sizes
from tasks.distill import student_spec
from tasks.models import channels_of, image_set, prepare_training, read_classes, read_manifest, save_model
from tasks.parameters import PARAMS_FILE, Parameters, load_parameters
from tasks.progress import progress
from tasks.recipes import student_recipe
from tasks.stage import exit_code_of, read_timings, timed

EPOCHS, BATCH_SIZE, VALIDATION_IMAGES = 5, 64, 1000


def run_demonstration(options: argparse.Namespace) -> None:
    """Train a student from labels and adapt it, in a folder that shares the images of a run.

    A student that the folder has already is kept.
    """
    for step in (INGEST, SPLIT):
        link = options.into / step
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to((options.checkout / step).resolve())
    shutil.copy(PARAMS_FILE, options.into)
    home = Path.cwd()
    os.chdir(options.into)
    parameters = load_parameters()
    prepare_training(parameters.seed)
    for name in parameters.adapt.models:
        if not (DISTILL / name / "model.json").exists():
            train_from_labels(name, options.from_labels, parameters)
    timed("adapt", lambda: exit_code_of(lambda: adapt(parameters)))
    os.chdir(home)


def train_from_labels(name: str, n_images: int, parameters: Parameters) -> None:
    """Train a student of the settings on the labels of the first training images, and save it as `distill` does."""
    size, classes, manifest = read_input_sizes().students[name], read_classes(), read_manifest()
    whole = {split: image_set(manifest, split, [size]) for split in ("train", "validation")}
    training, validation = (
        ImageSet(images.packed, images.rows[:most], images.labels[:most])
        for images, most in ((whole["train"], n_images), (whole["validation"], VALIDATION_IMAGES))
    )
    channels = channels_of(training)
    mean, std = normalization(channels)
    spec = student_spec(parameters.distill.students[name], channels, len(classes))
    planned = student_recipe(parameters.distill, False, size, len(training.rows), parameters.seed)
    recipe = replace(planned, phases=((EPOCHS, size),), batch_size=BATCH_SIZE, learning_rate=0.005)
    with progress(f"train {name}") as report:
        network, history = fit(
            random_residual_cnn(spec, parameters.seed),
            training,
            validation,
            label_loss(torch.from_numpy(training.labels), 0.05),
            recipe,
            mean=mean,
            std=std,
            device=pick_device(),
            report=report,
        )
    save_model(
        DISTILL / name,
        network,
        step="distill",
        parent="",
        input_size=size,
        channels=channels,
        fit=parameters.data.fit,
        mean=mean,
        std=std,
        classes=classes,
        notes={"history": history, "labels_of_images": len(training.rows)},
    )


def figures_of(scores: dict[str, Any], seconds: float | None) -> dict[str, Any]:
    """Return the figures of a run; raises KingletError if it adapted no model or says no share of a cost.

    scores: the content of artifacts/adapt/scores.json. seconds: that the step took, None if they are not known.
    """
    if not scores["models"]:
        raise KingletError(
            f"The run adapted no model{': ' + scores['reason'] if 'reason' in scores else '.'}",
            "Name a model in adapt.models and run again.",
        )
    without = [
        f"{name} by {method}"
        for name, of_model in scores["models"].items()
        for method, found in of_model["methods"].items()
        if found["recovered"] is None
    ]
    if without:
        raise KingletError(
            f"The run does not say which share of a change's cost was won back: {', '.join(without)}.",
            "Set adapt.target to demonstration, whose change has a cost, and run again.",
        )
    return {"seconds": seconds, **scores}


def seconds_of(workspace: Path) -> float | None:
    """Return how long the step took the last time that it ran."""
    timing = read_timings(workspace).get("adapt")
    return round(timing["ended"] - timing["started"], 1) if timing else None


def measure(options: argparse.Namespace) -> None:
    """Read the run, or run the demonstration, and write the result."""
    checkout = options.checkout
    if options.from_labels:
        checkout = options.into
        run_demonstration(options)
    scores = read_json(checkout / ADAPT / "scores.json")
    figures = figures_of(scores, seconds_of(checkout / ".kinglet"))
    figures["image_size"] = read_json(checkout / SOURCE_FACTS)["short_side"]
    figures["trained_on_labels_of_images"] = options.from_labels
    path = write_result(
        options.results,
        "adaptation",
        command=shown_command("adaptation", sys.argv[1:]),
        repetitions=1,
        figures=figures,
    )
    print(f"written: {path}", file=sys.stderr)


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, required=True, help="a checkout with a finished run")
    parser.add_argument("--from-labels", type=int, metavar="N", help="train a student on so many images first")
    parser.add_argument("--into", type=Path, help="with --from-labels: the folder that it works in")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result is written")
    options = parser.parse_args()
    if options.from_labels and not options.into:
        parser.error("--from-labels needs --into, the folder that it works in")
    return exit_code_of(lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
