"""Score segmenters on corrupted test images: 15 kinds in 5 severities, the same images and masks for all of them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from kinglet.atomic import atomic_path, read_json, write_json
from kinglet.evidence.corruption_curves import curves_of
from kinglet.evidence.mask_scores import mask_confusion
from kinglet.evidence.robustness import balanced_sample
from kinglet.evidence.segmentation_scores import miou, of_wholes
from tasks.artifacts import ROBUSTNESS, SPLIT, base_size, packed_images
from tasks.image_robustness import document, image_count, in_variants, open_models, seen_by, write_pictures
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.scored_models import teacher_name
from tasks.segmentation_answers import open_segmenter, read_masked
from tasks.segmentation_evaluate import HEADLINE
from tasks.true_masks import MaskedImages

Confusion = NDArray[np.int64]


def score_segmenters(parameters: Parameters) -> None:
    """Write what the segmenters make of corrupted test images, beside the teacher; the true masks stay as they are."""
    settings, classes, teacher = parameters.robustness, read_json(SPLIT / "classes.json"), teacher_name()
    models = open_models(settings, teacher, partial(open_segmenter, classes=classes))
    test = read_masked("test")
    largest = max(model.preprocessing.input_size for model in models.values())
    labels = rarest_class(test, len(classes))
    places = balanced_sample(labels, image_count(settings, len(test), largest), parameters.seed)
    images = test.take(places)
    packed = np.load(packed_images(base_size()), mmap_mode="r")

    def answers(pixels: NDArray[np.uint8], taken: NDArray[np.int64], name: str) -> list[Confusion]:
        part, model = images.take(taken), models[name]
        masks = model.masks(seen_by(pixels, model.preprocessing), part, name)
        return [mask_confusion(part.truth(place), mask, len(classes)) for place, mask in enumerate(masks)]

    with progress("robustness") as report:
        found = in_variants(packed, images.rows, list(models), answers, parameters.seed, report)
    confusions = {name: [np.stack(variant) for variant in of_model] for name, of_model in found.items()}
    curves = {
        name: curves_of(
            [partial(miou, of_wholes(variant, images.wholes)) for variant in of_model],
            images.n_wholes,
            seed=parameters.seed,
        )
        for name, of_model in confusions.items()
    }
    write_answers(images, confusions)
    write_pictures(packed, int(images.rows[0]), parameters.seed)
    pixels = int(confusions[teacher][0].sum())
    counts = {"images": len(images), "pixels": pixels, "test_images": len(test)}
    write_json(ROBUSTNESS / "scores.json", document(curves, HEADLINE, teacher, packed.shape[1], counts, parameters))


def rarest_class(images: MaskedImages, n_classes: int) -> NDArray[np.int64]:
    """Return of every image the class in it that the fewest images show; one more for those without a labelled pixel.

    Read from what `evaluate` counts too: the true masks.
    """
    shows = np.zeros((len(images), n_classes), bool)
    for place in range(len(images)):
        shows[place] = np.bincount(images.truth(place).ravel(), minlength=256)[:n_classes] > 0
    rare_first = np.argsort(shows.sum(axis=0), kind="stable")
    found = np.full(len(images), n_classes)
    for label in rare_first[::-1]:
        found[shows[:, label]] = label
    return found


def write_answers(images: MaskedImages, confusions: dict[str, list[Confusion]]) -> None:
    """Write a row for every model and image: its labelled pixels, and how many of them are right.

    clean: in the image as it is. corrupted: in all corrupted versions of it together.
    """

    def right(of_variant: Confusion) -> NDArray[np.int64]:
        return np.asarray(np.trace(of_variant, axis1=1, axis2=2))

    parts = [
        pa.table(
            {
                "model": pa.array([name] * len(images), pa.string()),
                "index": images.rows,
                "pixels": of_model[0].sum(axis=(1, 2)),
                "clean": right(of_model[0]),
                "corrupted": np.sum([right(variant) for variant in of_model[1:]], axis=0),
            }
        )
        for name, of_model in confusions.items()
    ]
    with atomic_path(ROBUSTNESS / "answers.parquet") as temporary:
        pyarrow.parquet.write_table(pa.concat_tables(parts), temporary, compression="zstd")
