"""Step `robustness`: score the models on corrupted test images, and on those that another camera would take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from kinglet.atomic import atomic_path, read_json, write_json
from kinglet.evidence.corruptions.kinds import KINDS
from kinglet.evidence.corruptions.severities import published_for
from kinglet.evidence.corruptions.shifts import SHIFTS
from kinglet.evidence.metrics import calibration_gap
from kinglet.evidence.robustness import Answers, balanced_sample, mean_interval, robustness_differences, verdict_of
from tasks.artifacts import (
    ROBUSTNESS,
    SPLIT,
    ModelCard,
    base_size,
    model_folders,
    packed_clips,
    packed_images,
    read_card,
    refuse_unknown_models,
)
from tasks.clip_answers import opened_clip_network
from tasks.corrupted_answers import WAYS, Task, answers_of, pictures
from tasks.detection_robustness import score_detectors
from tasks.evidence_settings import Robustness
from tasks.held_out import HeldOut, read_held_out
from tasks.opened_models import OpenedModel, open_model
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.scored_models import refuse_other_classes, teacher_name
from tasks.segmentation_robustness import score_segmenters
from tasks.setting_values import ALL
from tasks.settings_section import AUTO
from tasks.stage import run_stage

# What `images: auto` comes to: so many pixels of the largest input, between these numbers of images.
AUTO_PIXELS, AUTO_LEAST, AUTO_MOST = 400_000, 100, 500
# And of clips: about a minute of two models on two cores.
AUTO_CLIP_PIXELS, AUTO_LEAST_CLIPS = 4_000_000, 20


def run(parameters: Parameters) -> None:
    """Write scores.json, answers.parquet, and pictures.npy: the first of the images in every way and severity."""
    SCORING[parameters.network](parameters)


def score_classifiers(parameters: Parameters) -> None:
    """Score classifiers on corrupted test images, and on those that another camera would take."""
    score_answers(parameters, np.load(packed_images(base_size()), mmap_mode="r"), partial(open_model, threads=1))


def score_clip_networks(parameters: Parameters) -> None:
    """Score networks over clips on the same of test clips, every frame of which is corrupted."""
    packed = np.load(packed_clips(base_size()), mmap_mode="r")
    score_answers(parameters, packed, lambda folder, _: opened_clip_network(folder, packed.shape[1]))


def score_answers(
    parameters: Parameters, packed: NDArray[np.uint8], open_one: Callable[[Path, ModelCard], OpenedModel]
) -> None:
    """Score models that sort into classes. packed: as for `Task`. open_one: opens a model for it."""
    settings, test = parameters.robustness, read_held_out("test")
    teacher = teacher_name()
    models = open_models(settings, teacher, open_one)
    sizes = [model.preprocessing.input_size for model in models.values()]
    count = image_count(settings, test, max(sizes), packed.shape[1] if packed.ndim == 5 else 0)
    places = balanced_sample(test.labels, count, parameters.seed)
    task = Task(packed, test.rows[places], test.labels[places], models, WAYS, parameters.seed)
    with progress("robustness") as report:
        answers = answers_of(task, report)
    edge = packed.shape[-2]
    scores = {
        "images": len(places),
        "test_images": len(test.rows),
        "image_size": edge,
        "published": published_for(edge, edge).name,
        "shift_steps": {name: list(steps) for name, (_, steps) in SHIFTS.items()},
        "teacher": teacher,
        "models": {name: scores_of(of_model, answers[teacher], parameters) for name, of_model in answers.items()},
    }
    write_answers(task.rows, answers)
    with atomic_path(ROBUSTNESS / "pictures.npy") as temporary, temporary.open("wb") as file:
        np.save(file, pictures(np.load(packed_images(edge), mmap_mode="r")[task.rows[:1]], WAYS, parameters.seed))
    write_json(ROBUSTNESS / "scores.json", scores)


def open_models(
    settings: Robustness, teacher: str, open_one: Callable[[Path, ModelCard], OpenedModel]
) -> dict[str, OpenedModel]:
    """Return the models to score, the teacher first, each on one thread: the same answers on any number of them."""
    folders = {card.name: (folder, card) for folder in model_folders() for card in [read_card(folder)]}
    refuse_unknown_models("robustness.models", settings.models, folders)
    wanted = settings.models or [name for name, (_, card) in folders.items() if not card.control_for]
    classes = read_json(SPLIT / "classes.json")
    models = {}
    for name in dict.fromkeys([teacher, *wanted]):
        folder, card = folders[name]
        models[name] = open_one(folder, card)
        refuse_other_classes(folder, models[name].classes, classes)
    return models


def image_count(settings: Robustness, test: HeldOut, largest_input: int, frames: int = 0) -> int:
    """Return how many of the test images are scored, or of the test clips. frames: of a clip, 0 for images."""
    if settings.images == ALL:
        return len(test.rows)
    if settings.images == AUTO and frames:
        return max(AUTO_LEAST_CLIPS, min(AUTO_MOST, AUTO_CLIP_PIXELS // (frames * largest_input**2)))
    if settings.images == AUTO:
        return max(AUTO_LEAST, min(AUTO_MOST, AUTO_PIXELS // largest_input**2))
    return int(settings.images)


def scores_of(answers: Answers, of_teacher: Answers, parameters: Parameters) -> dict[str, Any]:
    """Return a model's scores, JSON-ready; differences are to the teacher, paired, image by image."""
    bins = parameters.evaluate.calibration_bins
    options: dict[str, Any] = {"confidence": parameters.evaluate.confidence, "seed": parameters.seed}
    corrupted, shifted = answers.only(slice(len(KINDS))), answers.only(slice(len(KINDS), None))
    teacher_corrupted = of_teacher.only(slice(len(KINDS)))
    changes = corrupted.by_image - teacher_corrupted.by_image
    clean_changes = answers.clean_correct.astype(float) - of_teacher.clean_correct
    difference, beyond_clean = robustness_differences(changes, clean_changes, **options)
    by_severity = [(corrupted.correct[:, place].ravel(), corrupted.confidence[:, place].ravel()) for place in range(5)]
    return {
        "clean_accuracy": rounded(answers.clean_correct.mean()),
        "clean_difference_to_teacher": mean_interval(clean_changes, **options).to_dict(),
        "mean_corruption_accuracy": mean_interval(corrupted.by_image, **options).to_dict(),
        "difference_to_teacher": difference.to_dict(),
        "beyond_clean": beyond_clean.to_dict(),
        "robustness": verdict_of(difference, beyond_clean, parameters.robustness.tolerance),
        "kinds": accuracies(corrupted, tuple(KINDS)),
        "shifts": accuracies(shifted, tuple(SHIFTS)),
        "severities": [rounded(correct.mean()) for correct, _ in by_severity],
        "calibration": {
            "clean": rounded(calibration_gap(answers.clean_correct, answers.clean_confidence, bins)),
            "corrupted": rounded(calibration_gap(corrupted.correct.ravel(), corrupted.confidence.ravel(), bins)),
            "severities": [rounded(calibration_gap(correct, sure, bins)) for correct, sure in by_severity],
        },
        "mean_confidence": {
            "clean": rounded(answers.clean_confidence.mean(dtype=np.float64)),
            "severities": [rounded(sure.mean(dtype=np.float64)) for _, sure in by_severity],
        },
    }


def accuracies(answers: Answers, ways: tuple[str, ...]) -> dict[str, list[float]]:
    """Return {way: accuracy in every severity}."""
    return {
        way: [rounded(share) for share in of_way.mean(axis=1)]
        for way, of_way in zip(ways, answers.correct, strict=True)
    }


def rounded(number: float) -> float:
    """Return a score as JSON keeps it."""
    return round(float(number), 6)


def write_answers(rows: NDArray[np.int64], answers: dict[str, Answers]) -> None:
    """Write what any two models can be compared by: a row for every model and image.

    index: the image's row in the packed files. clean: whether it was answered right. corrupted: how many of its
    corrupted versions were, of 15 kinds in 5 severities.
    """
    parts = [
        pa.table(
            {
                "model": pa.array([name] * len(rows)),
                "index": rows,
                "clean": of_model.clean_correct,
                "corrupted": of_model.only(slice(len(KINDS))).correct.sum(axis=(0, 1), dtype=np.int16),
            }
        )
        for name, of_model in answers.items()
    ]
    with atomic_path(ROBUSTNESS / "answers.parquet") as temporary:
        pa.parquet.write_table(pa.concat_tables(parts), temporary, compression="zstd")


SCORING = {
    "classification": score_classifiers,
    "detection": score_detectors,
    "segmentation": score_segmenters,
    "video": score_clip_networks,
}

if __name__ == "__main__":
    run_stage(run)
