"""Score every segmenter on the held-out images, in their own pixels, each score with its interval over images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from kinglet.atomic import atomic_folder, atomic_path, read_json, write_json
from kinglet.errors import KingletError
from kinglet.evidence.image_bootstrap import DrawnScores
from kinglet.evidence.image_gate import MIOU
from kinglet.evidence.mask_boundaries import TOLERANCE
from kinglet.evidence.segmentation_scores import MaskCounts, draw_masks
from kinglet.runtime.segmentation import Mask
from tasks.artifacts import EVALUATE, SPLIT, model_folders, read_card
from tasks.domain_scores import Score, places_by_domain, scores_by_domain
from tasks.evidence_settings import Evaluate
from tasks.image_scores import difference, interval_document, json_interval, json_of, read_intervals
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.scored_models import HELD_OUT, facts_of, report_rows, teacher_name
from tasks.segmentation_answers import (
    BOUNDARIES,
    MASKS,
    boundary_table,
    count_answers,
    open_segmenter,
    read_masked,
    write_mask,
    write_predictions,
)
from tasks.true_masks import MaskedImages

# What models are chosen by.
HEADLINE = MIOU.name
# What stands beside the scores of a part.
NUMBERS = ("n", "pixels", "support", "confusion")
# Rows of confusion.csv for every class: pixels are too many to have one each.
ROWS_PER_CLASS = 1000


def score_segmenters(parameters: Parameters) -> None:
    """Write what the segmenters make of held-out images, and what that is worth."""
    classes, teacher = read_json(SPLIT / "classes.json"), teacher_name()
    images = {split: read_masked(split) for split in HELD_OUT}
    cards = {card.name: card for folder in model_folders() for card in [read_card(folder)]}
    # The pictures of all models take their place together, with nothing of an earlier run between them.
    with atomic_folder(MASKS) as masks:
        counts = counted(images, classes, masks)
        refuse_without_pixels(counts[teacher])
        pyarrow.parquet.write_table(boundary_table(images, counts), masks / BOUNDARIES.name, compression="zstd")
    drawn = {
        name: {
            split: draw(of_images, images[split], parameters.evaluate, parameters.seed)
            for split, of_images in of_split.items()
        }
        for name, of_split in counts.items()
    }
    scores = {
        name: {
            **facts_of(cards[name]),
            **{
                split: scores_of(of_split, counts[name][split], classes, parameters.evaluate)
                for split, of_split in drawn[name].items()
            },
            "difference_to_teacher": {
                split: difference(
                    of_split,
                    drawn[teacher][split],
                    counts[name][split].is_same(counts[teacher][split]),
                    HEADLINE,
                    parameters.evaluate,
                )
                for split, of_split in drawn[name].items()
            },
        }
        for name in counts
    }
    test = images["test"]

    def score_of(name: str) -> Score:
        return lambda places: headline_at(places, test, counts[name]["test"], parameters)

    scores = scores_by_domain(places_by_domain(test.rows), scores, HEADLINE, score_of)
    write_json(EVALUATE / "intervals.json", interval_document(scores, NUMBERS, parameters.evaluate))
    write_predictions(images, counts)
    write_confusion(classes, counts[teacher]["test"].confusions.sum(axis=0))
    document = {"classes": classes, "teacher": teacher, "headline": HEADLINE, "boundary_tolerance": TOLERANCE}
    write_json(EVALUATE / "scores.json", {**document, "models": scores})


def counted(images: dict[str, MaskedImages], classes: list[str], masks: Path) -> dict[str, dict[str, MaskCounts]]:
    """Return {model: {split: what its masks are worth}}; writes those of the test images to `masks`/MODEL/INDEX.png."""
    folders, per_model = model_folders(), sum(map(len, images.values()))
    counts: dict[str, dict[str, MaskCounts]] = {}
    with progress("evaluate") as report:
        for position, folder in enumerate(folders):
            name, done = read_card(folder).name, position * per_model
            segmenter, counts[name] = open_segmenter(folder, classes), {}
            for split, of_split in images.items():
                rows = partial(report_rows, report, folder.name, done, len(folders) * per_model)
                keep = partial(keep_mask, masks / name) if split == "test" else None
                counts[name][split] = count_answers(segmenter, of_split, len(classes), str(folder), rows, keep)
                done += len(of_split)
    return counts


def keep_mask(folder: Path, row: int, mask: Mask) -> None:
    """Write the mask of one image."""
    write_mask(folder / f"{row}.png", mask)


def refuse_without_pixels(counts: dict[str, MaskCounts]) -> None:
    """Raise KingletError for a split in which no pixel has a class; counts: {split: those of a model}."""
    for split, of_split in counts.items():
        if not of_split.pixels.any():
            raise KingletError(
                f"None of the {len(of_split)} {split} images has a pixel with a class, so no model can be scored on "
                "them.",
                "Look at artifacts/split/counts.json and at the masks of these images.",
            )


def draw(counts: MaskCounts, images: MaskedImages, settings: Evaluate, seed: int) -> DrawnScores:
    """Return a model's scores over the images and over resamples of them, the same ones for every model.

    Tiles of one image are no independent examples: the whole images are drawn.
    """
    return draw_masks(counts.together(images.wholes), method=settings.interval, seed=seed)


def headline_at(
    places: NDArray[np.int64], images: MaskedImages, counts: MaskCounts, parameters: Parameters
) -> dict[str, float] | None:
    """Return a model's HEADLINE on some of the images with its interval, None where no pixel of them has a class."""
    own = MaskCounts(counts.confusions[places], counts.boundaries[places], counts.digests[places])
    drawn = draw(own, images.take(places), parameters.evaluate, parameters.seed)
    return json_interval(read_intervals(drawn, parameters.evaluate).overall[HEADLINE])


def scores_of(drawn: DrawnScores, counts: MaskCounts, classes: list[str], settings: Evaluate) -> dict[str, Any]:
    """Return all scores of one model on one split with their intervals; null where no pixel defines one."""
    support = counts.pixels.sum(axis=0).tolist()
    return {
        **json_of(read_intervals(drawn, settings), classes),
        "n": len(counts),
        "pixels": sum(support),
        "support": dict(zip(classes, support, strict=True)),
        "confusion": counts.confusions.sum(axis=0).tolist(),
    }


def write_confusion(classes: list[str], confusion: NDArray[np.int64]) -> None:
    """Write the teacher's test pixels for `dvc plots`, in as many rows of each class as it takes to show shares."""
    actual, predicted = [], []
    for label, counts in zip(classes, confusion, strict=True):
        for other, rows in zip(classes, in_rows(counts, ROWS_PER_CLASS), strict=True):
            actual += [label] * rows
            predicted += [other] * rows
    table = pa.table({"actual": pa.array(actual, pa.string()), "predicted": pa.array(predicted, pa.string())})
    with atomic_path(EVALUATE / "confusion.csv") as temporary:
        pyarrow.csv.write_csv(table, temporary)


def in_rows(counts: NDArray[np.int64], rows: int) -> list[int]:
    """Return a number of rows divided as the counts are, by largest remainders; none if all are 0."""
    total = int(counts.sum())
    if not total:
        return [0] * len(counts)
    exact = counts * (rows / total)
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort(whole - exact, kind="stable")
    whole[order[: rows - int(whole.sum())]] += 1
    return [int(number) for number in whole]
