"""Hold every detector against the teacher on the same images: is it worse, what does it miss now, and where?"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from kinglet.atomic import atomic_path, read_json, write_json, write_text
from kinglet.evidence.detection_intervals import draw_scores
from kinglet.evidence.detection_matches import Matches, Objects, match_objects
from kinglet.evidence.detection_outcomes import (
    NEWLY_FALSE,
    NEWLY_FOUND,
    NEWLY_MISSED,
    NO_LONGER_FALSE,
    changes,
    size_of,
)
from kinglet.evidence.detection_scores import map_50
from kinglet.evidence.image_bootstrap import DrawnScores
from kinglet.evidence.image_gate import MAP_50
from kinglet.evidence.image_slices import SliceChange, slice_changes
from kinglet.evidence.slices import Slice, slices_of
from tasks.artifacts import COMPARE, EVALUATE
from tasks.detection_answers import SIDES, BoxedImages, read_boxed, read_found
from tasks.detection_scores import HEADLINE
from tasks.image_scores import (
    comparison_head,
    control_comparisons,
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

KINDS = (NEWLY_MISSED, NEWLY_FOUND, NEWLY_FALSE, NO_LONGER_FALSE)
SHOWN = "objects"
FLIPS = pa.schema(
    [
        ("model", pa.string()),
        ("flip", pa.string()),
        ("index", pa.int64()),
        ("path", pa.string()),
        ("label_index", pa.int64()),
        ("size", pa.string()),
        ("score", pa.float32()),
        *((side, pa.float32()) for side in SIDES),
    ]
)


def compare_detectors(parameters: Parameters) -> None:
    """Write how what every detector finds differs from what the teacher finds."""
    evaluation = read_json(EVALUATE / "scores.json")
    teacher, classes, shown_from = evaluation["teacher"], evaluation["classes"], evaluation["shown_from"]
    images, names = read_boxed("test", classes), list(evaluation["models"])
    found = read_found(names, images, "test")
    matches = {name: match_objects(images.truths, boxes, len(images), len(classes)) for name, boxes in found.items()}
    settings = parameters.evaluate
    drawn = {
        name: draw_scores(of_model, shown_from, method=settings.interval, seed=parameters.seed)
        for name, of_model in matches.items()
    }
    slices, too_small = slices_of(slice_columns(images.rows), parameters.compare.min_slice_images)
    others = [name for name in names if name != teacher]
    same = {name: found[name].is_same(found[teacher]) for name in others}
    differences = {name: drawn[name].minus(drawn[teacher], is_same=same[name]) for name in others}
    by_slice = {name: changes_of_slices(matches[name], matches[teacher], slices, parameters) for name in others}
    flips = {name: changes(matches[name], matches[teacher], shown_from) for name in others}
    rows = {name: [slice_row(item, HEADLINE, SHOWN) for item in of_model] for name, of_model in by_slice.items()}
    write_text(COMPARE / "slices.csv", slices_csv(slice_columns_of(HEADLINE, SHOWN), rows))
    write_flips(flips, images)
    write_json(
        COMPARE / "differences.json",
        {name: json_of(read_intervals(of_model, settings), classes) for name, of_model in differences.items()},
    )
    comparisons = {
        **comparison_head(teacher, MAP_50, parameters),
        "test_images": len(images),
        "test_objects": len(images.truths),
        "slices": len(slices),
        "slices_too_small": too_small,
        "models": {
            name: comparison(drawn[name], differences[name], flips[name], by_slice[name], classes, parameters)
            for name in others
        },
        "controls": control_comparisons(
            evaluation["models"],
            drawn,
            lambda name, other: found[name].is_same(found[other]),
            HEADLINE,
            settings,
        ),
    }
    write_json(COMPARE / "comparisons.json", comparisons)


def comparison(
    drawn: DrawnScores,
    difference: DrawnScores,
    flips: dict[str, Objects],
    by_slice: list[SliceChange],
    classes: list[str],
    parameters: Parameters,
) -> dict[str, Any]:
    """Return what is known about a model beside the teacher, JSON-ready; the verdict is about map_50."""
    intervals = read_intervals(difference, parameters.evaluate).overall
    return {
        HEADLINE: round(float(drawn.values[drawn.column(HEADLINE)]), 6),
        "difference": json_interval(intervals[HEADLINE]),
        "difference_map": json_interval(intervals["map"]),
        **judged(difference, MAP_50, parameters),
        **{kind.replace(" ", "_"): counts_of(flips[kind], classes) for kind in KINDS},
        **hurt_slices(by_slice, HEADLINE, SHOWN),
    }


def counts_of(boxes: Objects, classes: list[str]) -> dict[str, Any]:
    """Return how many boxes there are, of every class and of every size."""
    by_class = np.bincount(boxes.labels, minlength=len(classes)).tolist()
    sizes = size_of(boxes)
    return {
        "n": len(boxes),
        "by_class": dict(zip(classes, by_class, strict=True)),
        "by_size": {size: int((sizes == size).sum()) for size in ("small", "medium", "large")},
    }


def changes_of_slices(
    own: Matches, of_teacher: Matches, slices: list[Slice], parameters: Parameters
) -> list[SliceChange]:
    """Return what became of every slice of the images under a model, worst first."""
    return slice_changes(
        partial(map_50, own),
        partial(map_50, of_teacher),
        np.bincount(own.truths.images, minlength=own.n_images),
        slices,
        correction=parameters.compare.correction,
        confidence=parameters.evaluate.confidence,
        seed=parameters.seed,
    )


def write_flips(flips: dict[str, dict[str, Objects]], images: BoxedImages) -> None:
    """Write a row for every object that only a model or only the teacher finds, and every such false detection."""
    parts = [FLIPS.empty_table()]
    for name, of_model in flips.items():
        for kind, boxes in of_model.items():
            n = len(boxes)
            columns = {
                "model": [name] * n,
                "flip": [kind] * n,
                "index": images.rows[boxes.images],
                "path": [images.paths[image] for image in boxes.images],
                "label_index": boxes.labels,
                "size": size_of(boxes).tolist(),
                # True objects have none.
                "score": [None] * n if boxes.scores is None else np.asarray(boxes.scores, np.float32),
                **{side: boxes.xyxy[:, column].astype(np.float32) for column, side in enumerate(SIDES)},
            }
            parts.append(pa.table(columns, schema=FLIPS))
    with atomic_path(COMPARE / "flips.parquet") as temporary:
        pyarrow.parquet.write_table(pa.concat_tables(parts), temporary, compression="zstd")
