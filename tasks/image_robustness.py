"""Scores on corrupted test images for models whose score images are resampled for: detectors and segmenters alike."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinglet.atomic import atomic_path
from kinglet.evidence.corruption_curves import Curves, between, interval
from kinglet.evidence.corruptions.kinds import KINDS
from kinglet.evidence.corruptions.pixels import resize_batch
from kinglet.evidence.corruptions.severities import SEVERITIES, published_for
from kinglet.evidence.robustness import verdict_of
from kinglet.runtime.preprocessing import InputTensor, Preprocessing, model_input
from kinglet.runtime.processors import available_processors
from tasks.artifacts import ROBUSTNESS, model_folders, read_card, refuse_unknown_models
from tasks.corrupted_answers import every_way, pictures, with_channels
from tasks.evidence_settings import Robustness
from tasks.parameters import Parameters
from tasks.progress import Report
from tasks.setting_values import ALL
from tasks.settings_section import AUTO

# What `images: auto` comes to: so many pixels of the largest input, between these numbers of images.
AUTO_PIXELS, AUTO_LEAST, AUTO_MOST = 2_500_000, 20, 100
# Images that one worker has in hand.
BATCH_SIZE = 8
VARIANTS = 1 + len(KINDS) * len(SEVERITIES)

Opened = TypeVar("Opened")
Answer = TypeVar("Answer")


def open_models(settings: Robustness, teacher: str, open_one: Callable[[Path], Opened]) -> dict[str, Opened]:
    """Return the models to score, the teacher first. open_one: opens the model of a folder."""
    folders = {card.name: (folder, card) for folder in model_folders() for card in [read_card(folder)]}
    refuse_unknown_models("robustness.models", settings.models, folders)
    wanted = settings.models or [name for name, (_, card) in folders.items() if not card.control_for]
    return {name: open_one(folders[name][0]) for name in dict.fromkeys([teacher, *wanted])}


def image_count(settings: Robustness, n_test: int, largest_input: int) -> int:
    """Return how many of the test images are scored."""
    if settings.images == ALL:
        return n_test
    if settings.images == AUTO:
        return max(AUTO_LEAST, min(AUTO_MOST, AUTO_PIXELS // largest_input**2))
    return int(settings.images)


def in_variants(
    packed: NDArray[np.uint8],
    rows: NDArray[np.int64],
    names: list[str],
    answers: Callable[[NDArray[np.uint8], NDArray[np.int64], str], list[Answer]],
    seed: int,
    report: Report,
) -> dict[str, list[list[Answer]]]:
    """Return {model: for every variant, for every image, its answer}; each image is corrupted once for all models.

    packed: what rows point into. answers: from packed pixels, where these images stand in `rows`, and a model's name,
    what it makes of each. The number of workers has no part in the result.
    """
    lock, done = threading.Lock(), 0

    def answers_from(start: int) -> dict[str, list[list[Answer]]]:
        nonlocal done
        places = np.arange(start, min(start + BATCH_SIZE, len(rows)))
        found: dict[str, list[list[Answer]]] = {name: [] for name in names}
        for changed in every_way(np.asarray(packed[rows[places]]), tuple(KINDS), seed):
            for name in names:
                found[name].append(answers(changed, places, name))
            with lock:
                done += len(places)
                report(done, VARIANTS * len(rows))
        return found

    with ThreadPoolExecutor(available_processors()) as pool:
        parts = list(pool.map(answers_from, range(0, len(rows), BATCH_SIZE)))
    return {
        name: [[item for part in parts for item in part[name][variant]] for variant in range(VARIANTS)]
        for name in names
    }


def seen_by(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> InputTensor:
    """Return packed pixels of another size as a model's input."""
    size = preprocessing.input_size
    changed = resize_batch(with_channels(pixels, preprocessing.channels), size, size, Image.Resampling.BILINEAR)
    return model_input(changed, preprocessing)


def write_pictures(packed: NDArray[np.uint8], row: int, seed: int) -> None:
    """Write what the corruptions look like on one image."""
    with atomic_path(ROBUSTNESS / "pictures.npy") as temporary, temporary.open("wb") as file:
        np.save(file, pictures(packed[[row]], tuple(KINDS), seed))


def document(
    curves: dict[str, Curves], name: str, teacher: str, edge: int, counts: dict[str, int], parameters: Parameters
) -> dict[str, Any]:
    """Return the content of scores.json. name: of the score. edge: of the corrupted images. counts: of the images."""
    return {
        **counts,
        "image_size": edge,
        "published": published_for(edge, edge).name,
        "teacher": teacher,
        "models": {model: scores_of(of_model, curves[teacher], name, parameters) for model, of_model in curves.items()},
    }


def scores_of(curves: Curves, of_teacher: Curves, name: str, parameters: Parameters) -> dict[str, Any]:
    """Return a model's scores, JSON-ready; differences are to the teacher, paired, over the same images."""
    confidence = parameters.evaluate.confidence
    difference = between(curves.corrupted(), of_teacher.corrupted(), confidence)
    beyond_clean = between(curves.beyond_clean(), of_teacher.beyond_clean(), confidence)
    by_kind = curves.values[1:].reshape(len(KINDS), len(SEVERITIES))
    value, drawn = curves.corrupted()
    return {
        f"clean_{name}": round(float(curves.values[0]), 6),
        f"mean_corruption_{name}": interval(value, drawn, confidence, lowest=0).to_dict(),
        "difference_to_teacher": difference.to_dict(),
        "beyond_clean": beyond_clean.to_dict(),
        "robustness": verdict_of(difference, beyond_clean, parameters.robustness.tolerance),
        "kinds": {
            kind: [round(score, 6) for score in of_kind] for kind, of_kind in zip(KINDS, by_kind.tolist(), strict=True)
        },
        "severities": [round(score, 6) for score in by_kind.mean(axis=0).tolist()],
    }
