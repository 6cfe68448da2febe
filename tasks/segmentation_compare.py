"""Hold every segmenter against the teacher on the same images: is it worse, which pixels are newly wrong, and where?"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from kinglet.atomic import atomic_path, read_json, write_json, write_text
from kinglet.evidence.image_bootstrap import DrawnScores
from kinglet.evidence.image_gate import MIOU
from kinglet.evidence.image_slices import SliceChange, slice_changes
from kinglet.evidence.mask_changes import mask_changes
from kinglet.evidence.segmentation_scores import MaskCounts, miou
from kinglet.evidence.slices import Slice, slices_of
from tasks.artifacts import COMPARE, EVALUATE
from tasks.image_scores import (
    comparison_head,
    control_comparisons,
    defined,
    hurt_slices,
    json_interval,
    json_of,
    judged,
    read_intervals,
    slice_columns_of,
    slice_row,
)
from tasks.image_slices import slice_columns, slices_csv
from tasks.parameters import Parameters
from tasks.segmentation_answers import MASKS, read_counts, read_masked
from tasks.segmentation_evaluate import HEADLINE, draw
from tasks.true_masks import MaskedImages, read_mask

SHOWN = "pixels"
# Images with the greatest loss that are named.
WORST_IMAGES = 10
FLIPS = pa.schema(
    [
        ("model", pa.string()),
        ("index", pa.int64()),
        ("path", pa.string()),
        ("label_index", pa.int64()),
        ("pixels", pa.int64()),
        ("newly_wrong", pa.int64()),
        ("newly_right", pa.int64()),
    ]
)


def compare_segmenters(parameters: Parameters) -> None:
    """Write how the masks of every segmenter differ from the teacher's."""
    evaluation = read_json(EVALUATE / "scores.json")
    teacher, classes = evaluation["teacher"], evaluation["classes"]
    images, names = read_masked("test"), list(evaluation["models"])
    counts = read_counts(names, images, "test", len(classes))
    settings = parameters.evaluate
    drawn = {name: draw(of_model, images, settings, parameters.seed) for name, of_model in counts.items()}
    slices, too_small = slices_of(slice_columns(images.rows), parameters.compare.min_slice_images)
    others = [name for name in names if name != teacher]
    differences = {
        name: drawn[name].minus(drawn[teacher], is_same=counts[name].is_same(counts[teacher])) for name in others
    }
    by_slice = {name: changes_of_slices(counts[name], counts[teacher], slices, parameters) for name in others}
    flips = pixel_changes(images, teacher, others, len(classes))
    rows = {name: [slice_row(item, HEADLINE, SHOWN) for item in of_model] for name, of_model in by_slice.items()}
    write_text(COMPARE / "slices.csv", slices_csv(slice_columns_of(HEADLINE, SHOWN), rows))
    write_flips(flips, counts[teacher].pixels, images)
    write_json(
        COMPARE / "differences.json",
        {name: json_of(read_intervals(of_model, settings), classes) for name, of_model in differences.items()},
    )
    pixels = counts[teacher].pixels
    comparisons = {
        **comparison_head(teacher, MIOU, parameters),
        "test_images": images.n_wholes,
        "test_pixels": int(pixels.sum()),
        "slices": len(slices),
        "slices_too_small": too_small,
        "models": {
            name: {
                **comparison(drawn[name], differences[name], by_slice[name], parameters),
                **newly(flips[name], pixels, images, classes),
            }
            for name in others
        },
        "controls": control_comparisons(
            evaluation["models"],
            drawn,
            lambda name, other: counts[name].is_same(counts[other]),
            HEADLINE,
            settings,
        ),
    }
    write_json(COMPARE / "comparisons.json", comparisons)


def changes_of_slices(
    own: MaskCounts, of_teacher: MaskCounts, slices: list[Slice], parameters: Parameters
) -> list[SliceChange]:
    """Return what became of every slice of the images under a model, worst first."""
    return slice_changes(
        partial(miou, own.confusions),
        partial(miou, of_teacher.confusions),
        own.pixels.sum(axis=1),
        slices,
        correction=parameters.compare.correction,
        confidence=parameters.evaluate.confidence,
        seed=parameters.seed,
    )


def pixel_changes(
    images: MaskedImages, teacher: str, others: list[str], n_classes: int
) -> dict[str, NDArray[np.int64]]:
    """Return {model: pixels of every image and class that are newly wrong and newly right, (n, 2, n_classes)}."""
    changes = {name: np.zeros((len(images), 2, n_classes), np.int64) for name in others}
    for place, row in enumerate(images.rows.tolist()):
        truth, of_teacher = images.truth(place), read_mask(MASKS / teacher / f"{row}.png")
        for name in others:
            predicted = read_mask(MASKS / name / f"{row}.png")
            changes[name][place] = mask_changes(truth, of_teacher, predicted, n_classes)
    return changes


def comparison(
    drawn: DrawnScores, difference: DrawnScores, by_slice: list[SliceChange], parameters: Parameters
) -> dict[str, Any]:
    """Return what is known about a model beside the teacher, JSON-ready; the verdict is about miou."""
    intervals = read_intervals(difference, parameters.evaluate).overall
    return {
        HEADLINE: round(float(drawn.values[drawn.column(HEADLINE)]), 6),
        "difference": defined(intervals[HEADLINE]),
        "difference_pixel_accuracy": defined(intervals["pixel_accuracy"]),
        "difference_dice": defined(intervals["dice"]),
        "difference_boundary_f1": json_interval(intervals["boundary_f1"]),
        **judged(difference, MIOU, parameters),
        **hurt_slices(by_slice, HEADLINE, SHOWN),
    }


def newly(
    flips: NDArray[np.int64], pixels: NDArray[np.int64], images: MaskedImages, classes: list[str]
) -> dict[str, Any]:
    """Return how many pixels are newly wrong and newly right, of every class, and the images that lose most of them.

    flips: (n_images, 2, n_classes). pixels: labelled ones of every image and class.
    """
    wrong, right = flips[:, 0], flips[:, 1]
    labelled = pixels.sum(axis=1)
    loss = np.divide((wrong - right).sum(axis=1), labelled, out=np.zeros(len(labelled)), where=labelled > 0)
    order = [place for place in np.lexsort((images.rows, -loss)).tolist() if loss[place] > 0][:WORST_IMAGES]
    return {
        **{
            f"newly_{word}": {
                "pixels": int(of_all.sum()),
                "by_class": dict(zip(classes, of_all.sum(axis=0).tolist(), strict=True)),
            }
            for word, of_all in (("wrong", wrong), ("right", right))
        },
        "worst_images": [
            {
                "index": int(images.rows[place]),
                "path": images.paths[place],
                "lost": round(float(loss[place]), 6),
                "newly_wrong": int(wrong[place].sum()),
                "newly_right": int(right[place].sum()),
            }
            for place in order
        ],
    }


def write_flips(flips: dict[str, NDArray[np.int64]], pixels: NDArray[np.int64], images: MaskedImages) -> None:
    """Write a row for every model, image and class in it: its pixels that are newly wrong, and newly right."""
    parts = [FLIPS.empty_table()]
    for name, of_model in flips.items():
        image, label = np.nonzero(pixels)
        columns = {
            "model": [name] * len(image),
            "index": images.rows[image],
            "path": [images.paths[place] for place in image],
            "label_index": label.astype(np.int64),
            "pixels": pixels[image, label],
            "newly_wrong": of_model[image, 0, label],
            "newly_right": of_model[image, 1, label],
        }
        parts.append(pa.table(columns, schema=FLIPS))
    with atomic_path(COMPARE / "flips.parquet") as temporary:
        pyarrow.parquet.write_table(pa.concat_tables(parts), temporary, compression="zstd")
