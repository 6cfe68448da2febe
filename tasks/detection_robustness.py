"""Score detectors on corrupted test images: 15 kinds in 5 severities, the same images for all of them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray
from PIL import Image

from kinglet.atomic import atomic_path, read_json, write_json
from kinglet.errors import KingletError
from kinglet.evidence.corruptions.kinds import KINDS
from kinglet.evidence.corruptions.pixels import resize_batch
from kinglet.evidence.corruptions.severities import SEVERITIES, published_for
from kinglet.evidence.detection_matches import LOOSEST_IOU, WHOLE, Matches, match_objects, objects_of
from kinglet.evidence.detection_outcomes import outcomes_of
from kinglet.evidence.detection_robustness import Curves, between, curves_of, interval
from kinglet.evidence.robustness import balanced_sample, verdict_of
from kinglet.runtime.detection import SCORED_FROM, SHOWN_FROM, Detections, decode_detections
from kinglet.runtime.preprocessing import model_input
from kinglet.runtime.processors import available_processors
from tasks.artifacts import ROBUSTNESS, SPLIT, base_size, model_folders, packed_images, read_card, refuse_unknown_models
from tasks.corrupted_answers import every_way, pictures, with_channels
from tasks.detection_answers import BoxedImages, OpenedDetector, open_detector, read_boxed
from tasks.parameters import ALL, AUTO, Parameters, Robustness
from tasks.progress import Report, progress
from tasks.scored_models import teacher_name

# What `images: auto` comes to: so many pixels of the largest input, between these numbers of images.
AUTO_PIXELS, AUTO_LEAST, AUTO_MOST = 2_500_000, 20, 100
# Images that one worker has in hand.
BATCH_SIZE = 8
VARIANTS = 1 + len(KINDS) * len(SEVERITIES)


def score_detectors(parameters: Parameters) -> None:
    """Write what the detectors find in corrupted test images, beside the teacher."""
    settings, classes, teacher = parameters.robustness, read_json(SPLIT / "classes.json"), teacher_name()
    models = open_models(settings, teacher, classes)
    test = read_boxed("test", classes)
    largest = max(model.preprocessing.input_size for model in models.values())
    places = balanced_sample(rarest_label(test), image_count(settings, len(test), largest), parameters.seed)
    images = test.take(places)
    packed = np.load(packed_images(base_size()), mmap_mode="r")
    with progress("robustness") as report:
        found = found_in_variants(packed, images, models, parameters.seed, report)
    matches = {
        name: [
            match_objects(images.truths, objects_of(variant), len(images), len(classes), ious=LOOSEST_IOU, sizes=WHOLE)
            for variant in of_model
        ]
        for name, of_model in found.items()
    }
    curves = {name: curves_of(of_model, seed=parameters.seed) for name, of_model in matches.items()}
    edge = packed.shape[1]
    write_answers(images, matches)
    with atomic_path(ROBUSTNESS / "pictures.npy") as temporary, temporary.open("wb") as file:
        np.save(file, pictures(packed[images.rows[:1]], tuple(KINDS), parameters.seed))
    scores = {
        "images": len(images),
        "objects": len(images.truths),
        "test_images": len(test),
        "image_size": edge,
        "published": published_for(edge, edge).name,
        "teacher": teacher,
        "models": {name: scores_of(of_model, curves[teacher], parameters) for name, of_model in curves.items()},
    }
    write_json(ROBUSTNESS / "scores.json", scores)


def open_models(settings: Robustness, teacher: str, classes: list[str]) -> dict[str, OpenedDetector]:
    """Return the models to score, the teacher first."""
    folders = {card.name: (folder, card) for folder in model_folders() for card in [read_card(folder)]}
    refuse_unknown_models("robustness.models", settings.models, folders)
    wanted = settings.models or [name for name, (_, card) in folders.items() if not card.control_for]
    return {name: open_detector(folders[name][0], classes) for name in dict.fromkeys([teacher, *wanted])}


def image_count(settings: Robustness, n_test: int, largest_input: int) -> int:
    """Return how many of the test images are scored."""
    if settings.images == ALL:
        return n_test
    if settings.images == AUTO:
        return max(AUTO_LEAST, min(AUTO_MOST, AUTO_PIXELS // largest_input**2))
    return int(settings.images)


def rarest_label(images: BoxedImages) -> NDArray[np.int64]:
    """Return of every image the class of its objects that the fewest objects have; one more for those without."""
    counts = np.bincount(images.truths.labels)
    found = np.full(len(images), len(counts))
    # The rarest comes last, so that it stays.
    for row in np.argsort(-counts[images.truths.labels], kind="stable"):
        found[images.truths.images[row]] = images.truths.labels[row]
    return found


def found_in_variants(
    packed: NDArray[np.uint8], images: BoxedImages, models: dict[str, OpenedDetector], seed: int, report: Report
) -> dict[str, list[list[Detections]]]:
    """Return {model: for every variant, for every image, what it finds}; each image is corrupted once for all models.

    packed: what images.rows point into. The number of workers has no part in the result.
    """
    lock, done = threading.Lock(), 0

    def found_from(start: int) -> dict[str, list[list[Detections]]]:
        nonlocal done
        part = images.take(np.arange(start, min(start + BATCH_SIZE, len(images))))
        found: dict[str, list[list[Detections]]] = {name: [] for name in models}
        for changed in every_way(np.asarray(packed[part.rows]), tuple(KINDS), seed):
            for name, model in models.items():
                found[name].append(found_in(changed, part, model, name))
            with lock:
                done += len(part)
                report(done, VARIANTS * len(images))
        return found

    with ThreadPoolExecutor(available_processors()) as pool:
        parts = list(pool.map(found_from, range(0, len(images), BATCH_SIZE)))
    return {
        name: [[item for part in parts for item in part[name][variant]] for variant in range(VARIANTS)]
        for name in models
    }


def found_in(pixels: NDArray[np.uint8], images: BoxedImages, model: OpenedDetector, name: str) -> list[Detections]:
    """Return what a model finds in packed pixels of these images; name: what errors call it."""
    preprocessing = model.preprocessing
    size = preprocessing.input_size
    seen = resize_batch(with_channels(pixels, preprocessing.channels), size, size, Image.Resampling.BILINEAR)
    logits, boxes = model.compute(model_input(seen, preprocessing))
    try:
        return decode_detections(logits, boxes, model.placements(images), score_threshold=SCORED_FROM)
    except ValueError as error:
        raise KingletError(f"{name} cannot be scored on corrupted images: {error}.") from None


def scores_of(curves: Curves, of_teacher: Curves, parameters: Parameters) -> dict[str, Any]:
    """Return a model's scores, JSON-ready; differences are to the teacher, paired, over the same images."""
    confidence = parameters.evaluate.confidence
    difference = between(curves.corrupted(), of_teacher.corrupted(), confidence)
    beyond_clean = between(curves.beyond_clean(), of_teacher.beyond_clean(), confidence)
    by_kind = curves.values[1:].reshape(len(KINDS), len(SEVERITIES))
    value, drawn = curves.corrupted()
    return {
        "clean_map_50": round(float(curves.values[0]), 6),
        "mean_corruption_map_50": interval(value, drawn, confidence, lowest=0).to_dict(),
        "difference_to_teacher": difference.to_dict(),
        "beyond_clean": beyond_clean.to_dict(),
        "robustness": verdict_of(difference, beyond_clean, parameters.robustness.tolerance),
        "kinds": {
            kind: [round(score, 6) for score in of_kind] for kind, of_kind in zip(KINDS, by_kind.tolist(), strict=True)
        },
        "severities": [round(score, 6) for score in by_kind.mean(axis=0).tolist()],
    }


def write_answers(images: BoxedImages, matches: dict[str, list[Matches]]) -> None:
    """Write a row for every model and image: its objects, and how many of them are found and shown.

    clean: in the image as it is. corrupted: in all corrupted versions of it together.
    """

    def found_in_images(of_variant: Matches) -> NDArray[np.int64]:
        shown = of_variant.truths.images[outcomes_of(of_variant, SHOWN_FROM).is_found]
        return np.bincount(shown, minlength=len(images))

    parts = [
        pa.table(
            {
                "model": pa.array([name] * len(images)),
                "index": images.rows,
                "objects": np.bincount(images.truths.images, minlength=len(images)),
                "clean": found_in_images(of_model[0]),
                "corrupted": np.sum([found_in_images(variant) for variant in of_model[1:]], axis=0),
            }
        )
        for name, of_model in matches.items()
    ]
    with atomic_path(ROBUSTNESS / "answers.parquet") as temporary:
        pyarrow.parquet.write_table(pa.concat_tables(parts), temporary, compression="zstd")
