"""Score detectors on corrupted test images: 15 kinds in 5 severities, the same images for all of them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from kinglet.atomic import atomic_path, read_json, write_json
from kinglet.errors import KingletError
from kinglet.evidence.corruption_curves import curves_of
from kinglet.evidence.detection_matches import LOOSEST_IOU, WHOLE, Matches, match_objects, objects_of
from kinglet.evidence.detection_outcomes import outcomes_of
from kinglet.evidence.detection_scores import map_50
from kinglet.evidence.robustness import balanced_sample
from kinglet.runtime.detection import SCORED_FROM, SHOWN_FROM, Detections, decode_detections
from tasks.artifacts import ROBUSTNESS, SPLIT, base_size, packed_images
from tasks.detection_answers import BoxedImages, OpenedDetector, open_detector, read_boxed
from tasks.detection_scores import HEADLINE
from tasks.image_robustness import document, image_count, in_variants, open_models, seen_by, write_pictures
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.scored_models import teacher_name


def score_detectors(parameters: Parameters) -> None:
    """Write what the detectors find in corrupted test images, beside the teacher."""
    settings, classes, teacher = parameters.robustness, read_json(SPLIT / "classes.json"), teacher_name()
    models = open_models(settings, teacher, partial(open_detector, classes=classes))
    test = read_boxed("test", classes)
    largest = max(model.preprocessing.input_size for model in models.values())
    places = balanced_sample(rarest_label(test), image_count(settings, len(test), largest), parameters.seed)
    images = test.take(places)
    packed = np.load(packed_images(base_size()), mmap_mode="r")

    def answers(pixels: NDArray[np.uint8], taken: NDArray[np.int64], name: str) -> list[Detections]:
        return found_in(pixels, images.take(taken), models[name], name)

    with progress("robustness") as report:
        found = in_variants(packed, images.rows, list(models), answers, parameters.seed, report)
    matches = {
        name: [
            match_objects(images.truths, objects_of(variant), len(images), len(classes), ious=LOOSEST_IOU, sizes=WHOLE)
            for variant in of_model
        ]
        for name, of_model in found.items()
    }
    curves = {
        name: curves_of([partial(map_50, variant) for variant in of_model], len(images), seed=parameters.seed)
        for name, of_model in matches.items()
    }
    write_answers(images, matches)
    write_pictures(packed, int(images.rows[0]), parameters.seed)
    counts = {"images": len(images), "objects": len(images.truths), "test_images": len(test)}
    write_json(ROBUSTNESS / "scores.json", document(curves, HEADLINE, teacher, packed.shape[1], counts, parameters))


def rarest_label(images: BoxedImages) -> NDArray[np.int64]:
    """Return of every image the class of its objects that the fewest objects have; one more for those without."""
    counts = np.bincount(images.truths.labels)
    found = np.full(len(images), len(counts))
    # The rarest comes last, so that it stays.
    for row in np.argsort(-counts[images.truths.labels], kind="stable"):
        found[images.truths.images[row]] = images.truths.labels[row]
    return found


def found_in(pixels: NDArray[np.uint8], images: BoxedImages, model: OpenedDetector, name: str) -> list[Detections]:
    """Return what a model finds in packed pixels of these images; name: what errors call it."""
    logits, boxes = model.compute(seen_by(pixels, model.preprocessing))
    try:
        return decode_detections(logits, boxes, model.placements(images), score_threshold=SCORED_FROM)
    except ValueError as error:
        raise KingletError(f"{name} cannot be scored on corrupted images: {error}.") from None


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
