"""Step `robustness`: score the models on corrupted test images, and on those that another camera would take."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinglet.atomic import atomic_path, read_json, write_json
from kinglet.errors import KingletError
from kinglet.evidence.corruptions.kinds import KINDS, corrupt
from kinglet.evidence.corruptions.pixels import resize_batch
from kinglet.evidence.corruptions.severities import SEVERITIES, published_for
from kinglet.evidence.corruptions.shifts import SHIFTS
from kinglet.evidence.corruptions.streams import image_keys
from kinglet.evidence.metrics import calibration_gap
from kinglet.evidence.robustness import Answers, balanced_sample, mean_interval, verdict_of
from kinglet.runtime.preprocessing import InputTensor, model_input
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import softmax
from tasks.artifacts import (
    ROBUSTNESS,
    SOURCE_FACTS,
    SPLIT,
    model_folders,
    packed_images,
    read_card,
    read_input_sizes,
    refuse_unknown_models,
)
from tasks.evaluate import HeldOut, read_held_out, teacher_name
from tasks.opened_models import OpenedModel, open_model
from tasks.parameters import ALL, AUTO, Parameters, Robustness
from tasks.progress import Report, progress
from tasks.stage import run_stage

WAYS = (*KINDS, *SHIFTS)
# What `images: auto` comes to: so many pixels of the largest input, between these numbers of images.
AUTO_PIXELS, AUTO_LEAST, AUTO_MOST = 400_000, 100, 500
# Images that one worker has in hand, and the most values that they hold.
BATCH, BATCH_VALUES = 32, 3_000_000
PICTURE_SIZE = 64


@dataclass(frozen=True)
class Task:
    """What is asked: which images, of which packed file, in which ways changed, of which models.

    packed: uint8 (n, edge, edge, channels), memory-mapped. rows, labels: int64 of shape (n_images,).
    """

    packed: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    models: dict[str, OpenedModel]
    ways: tuple[str, ...]
    seed: int


def run(parameters: Parameters) -> None:
    """Write scores.json, and pictures.npy: the first of the images in every way and severity."""
    settings, test = parameters.robustness, read_held_out("test")
    teacher = teacher_name()
    models = open_models(settings, teacher)
    sizes = [model.preprocessing.input_size for model in models.values()]
    places = balanced_sample(test.labels, image_count(settings, test, max(sizes)), parameters.seed)
    packed = np.load(packed_images(base_size()), mmap_mode="r")
    task = Task(packed, test.rows[places], test.labels[places], models, WAYS, parameters.seed)
    # First: it makes the frost, which the workers would otherwise make side by side.
    shown = pictures(packed[task.rows[:1]], parameters.seed)
    with progress("robustness") as report:
        answers = answers_of(task, report)
    edge = packed.shape[1]
    scores = {
        "images": len(places),
        "test_images": len(test.rows),
        "image_size": edge,
        "published": published_for(edge, edge).name,
        "shift_steps": {name: list(steps) for name, (_, steps) in SHIFTS.items()},
        "teacher": teacher,
        "models": {name: scores_of(of_model, answers[teacher], parameters) for name, of_model in answers.items()},
    }
    with atomic_path(ROBUSTNESS / "pictures.npy") as temporary, temporary.open("wb") as file:
        np.save(file, shown)
    write_json(ROBUSTNESS / "scores.json", scores)


def open_models(settings: Robustness, teacher: str) -> dict[str, OpenedModel]:
    """Return the models to score, the teacher first, each on one thread: the same answers on any number of them."""
    folders = {card.name: (folder, card) for folder in model_folders() for card in [read_card(folder)]}
    refuse_unknown_models("robustness.models", settings.models, folders)
    wanted = settings.models or [name for name, (_, card) in folders.items() if not card.control_for]
    classes = read_json(SPLIT / "classes.json")
    models = {}
    for name in dict.fromkeys([teacher, *wanted]):
        folder, card = folders[name]
        models[name] = open_model(folder, card, threads=1)
        if models[name].classes != classes:
            raise KingletError(
                f"{folder} was made for other classes than {SPLIT / 'classes.json'} lists.", "Run `dvc repro`."
            )
    return models


def image_count(settings: Robustness, test: HeldOut, largest_input: int) -> int:
    """Return how many of the test images are scored."""
    if settings.images == ALL:
        return len(test.rows)
    if settings.images == AUTO:
        return max(AUTO_LEAST, min(AUTO_MOST, AUTO_PIXELS // largest_input**2))
    return int(settings.images)


def base_size() -> int:
    """Return the packed size that images are corrupted at: the smallest with all their pixels, or else the largest.

    A camera corrupts the picture that it takes, not what a model makes of it.
    """
    sizes, short_side = read_input_sizes().all, read_json(SOURCE_FACTS)["short_side"]
    return next((size for size in sizes if size >= short_side), sizes[-1])


def answers_of(task: Task, report: Report) -> dict[str, Answers]:
    """Return every model's answers to the images, clean and in every way; each is corrupted once for all models."""
    edge, channels = task.packed.shape[1], task.packed.shape[3]
    batch = max(1, min(BATCH, BATCH_VALUES // (edge * edge * channels)))
    starts = range(0, len(task.rows), batch)
    in_all = (1 + len(task.ways) * len(SEVERITIES)) * len(task.rows)
    lock, done = threading.Lock(), 0

    def answers_from(start: int) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.float32]]]:
        nonlocal done
        images = np.asarray(task.packed[task.rows[start : start + batch]])
        labels = task.labels[start : start + batch]
        found: dict[str, list[tuple[NDArray[np.bool_], NDArray[np.float32]]]] = {name: [] for name in task.models}
        for changed in every_way(images, task.ways, task.seed):
            for name, probabilities in answers_to(changed, task.models):
                found[name].append((probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)))
            with lock:
                done += len(images)
                report(done, in_all)
        return {
            name: (np.stack([correct for correct, _ in pairs]), np.stack([sure for _, sure in pairs]))
            for name, pairs in found.items()
        }

    with ThreadPoolExecutor(available_processors()) as pool:
        parts = list(pool.map(answers_from, starts))
    return {name: gathered([part[name] for part in parts]) for name in task.models}


def gathered(parts: list[tuple[NDArray[np.bool_], NDArray[np.float32]]]) -> Answers:
    """Return the answers of all batches; a part's rows are the clean images, then every way in every severity."""
    correct, confidence = (np.concatenate([part[index] for part in parts], axis=1) for index in (0, 1))
    shape = -1, len(SEVERITIES), correct.shape[1]
    return Answers(correct[1:].reshape(shape), confidence[1:].reshape(shape), correct[0], confidence[0])


def every_way(images: NDArray[np.uint8], ways: Iterable[str], seed: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the images as they are, then in each of these ways, in every severity."""
    keys = image_keys(images)
    yield images
    for way in ways:
        for severity in SEVERITIES:
            yield corrupt(images, way, severity, keys, seed)


def answers_to(images: NDArray[np.uint8], models: dict[str, OpenedModel]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield every model's name and probabilities (n, n_classes); what models share is computed once."""
    inputs: dict[Any, InputTensor] = {}
    for name, model in models.items():
        preprocessing = model.preprocessing
        if preprocessing not in inputs:
            size = preprocessing.input_size
            # A square has the same pixels after every fit, and these are the server's, bit for bit.
            inputs[preprocessing] = model_input(
                resize_batch(images, size, size, Image.Resampling.BILINEAR), preprocessing
            )
        logits = model.engine.run(inputs[preprocessing])
        if not np.isfinite(logits).all():
            raise KingletError(f"The model {name} gives NaN or infinite logits on corrupted test images.")
        yield name, softmax(logits)


def scores_of(answers: Answers, of_teacher: Answers, parameters: Parameters) -> dict[str, Any]:
    """Return a model's scores, JSON-ready; differences are to the teacher, paired, image by image."""
    bins = parameters.evaluate.calibration_bins
    options: dict[str, Any] = {"confidence": parameters.evaluate.confidence, "seed": parameters.seed}
    corrupted, shifted = answers.only(slice(len(KINDS))), answers.only(slice(len(KINDS), None))
    teacher_corrupted = of_teacher.only(slice(len(KINDS)))
    changes = corrupted.by_image - teacher_corrupted.by_image
    clean_changes = answers.clean_correct.astype(float) - of_teacher.clean_correct
    difference = mean_interval(changes, **options)
    beyond_clean = mean_interval(changes - clean_changes, **options)
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


def pictures(image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Return one image in every way and severity, uint8 (ways, severities, size, size, channels), in order of WAYS.

    size: the image's, but at most PICTURE_SIZE pixels.
    """
    _, *changed = every_way(image, WAYS, seed)
    stacked = np.concatenate(changed)
    size = min(PICTURE_SIZE, stacked.shape[1])
    small = resize_batch(stacked, size, size, Image.Resampling.BILINEAR)
    return small.reshape(len(WAYS), len(SEVERITIES), size, size, -1)


if __name__ == "__main__":
    run_stage(run)
