"""Score every detector on the held-out images, by COCO's rules, each score with its interval over images."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from kinglet.atomic import atomic_path, read_json, write_json
from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.detection_intervals import DetectionIntervals, DrawnScores, detection_intervals, draw_scores
from kinglet.evidence.detection_matches import Objects, match_objects
from kinglet.evidence.detection_outcomes import outcomes_of
from kinglet.runtime.detection import SHOWN_FROM
from tasks.artifacts import EVALUATE, SPLIT, model_folders, read_card
from tasks.detection_answers import BoxedImages, find_objects, open_detector, read_boxed, write_predictions
from tasks.parameters import Evaluate, Parameters
from tasks.progress import progress
from tasks.scored_models import HELD_OUT, facts_of, report_rows, teacher_name

# What models are chosen by.
HEADLINE = "map_50"
# In confusion.csv: an object that nothing found, and a detection of nothing.
MISSED, NOTHING = "(missed)", "(nothing)"


def score_detectors(parameters: Parameters) -> None:
    """Write what the detectors find in held-out images, and what that is worth."""
    classes, teacher = read_json(SPLIT / "classes.json"), teacher_name()
    images = {split: read_boxed(split, classes) for split in HELD_OUT}
    folders, per_model = model_folders(), sum(map(len, images.values()))
    cards, found = {}, dict[str, dict[str, Objects]]()
    with progress("evaluate") as report:
        for position, folder in enumerate(folders):
            card = read_card(folder)
            detector, done = open_detector(folder, classes), position * per_model
            cards[card.name], found[card.name] = card, {}
            for split, of_split in images.items():
                rows = partial(report_rows, report, folder.name, done, len(folders) * per_model)
                found[card.name][split] = find_objects(detector, of_split, str(folder), rows)
                done += len(of_split)
    drawn = {
        name: {
            split: draw(images[split], boxes, len(classes), parameters.evaluate, parameters.seed)
            for split, boxes in of_split.items()
        }
        for name, of_split in found.items()
    }
    scores = {
        name: {
            **facts_of(cards[name]),
            **{
                split: scores_of(of_split, images[split], found[name][split], classes, parameters.evaluate)
                for split, of_split in drawn[name].items()
            },
            "difference_to_teacher": {
                split: difference(
                    of_split,
                    drawn[teacher][split],
                    same_objects(found[name][split], found[teacher][split]),
                    parameters.evaluate,
                )
                for split, of_split in drawn[name].items()
            },
        }
        for name in found
    }
    write_json(EVALUATE / "intervals.json", interval_document(scores, parameters.evaluate))
    write_predictions(images, found)
    write_confusion(classes, images["test"], found[teacher]["test"])
    document = {"classes": classes, "teacher": teacher, "headline": HEADLINE, "shown_from": SHOWN_FROM}
    write_json(EVALUATE / "scores.json", {**document, "models": scores})


def draw(images: BoxedImages, found: Objects, n_classes: int, settings: Evaluate, seed: int) -> DrawnScores:
    """Return a model's scores over the images and over resamples of them, the same ones for every model."""
    matches = match_objects(images.truths, found, len(images), n_classes)
    return draw_scores(matches, SHOWN_FROM, method=settings.interval, seed=seed)


def difference(own: DrawnScores, of_teacher: DrawnScores, is_same: bool, settings: Evaluate) -> dict[str, float]:
    """Return the paired difference of HEADLINE to the teacher with its interval, JSON-ready."""
    found = detection_intervals(
        own.minus(of_teacher, is_same=is_same), method=settings.interval, confidence=settings.confidence
    ).overall[HEADLINE]
    assert found is not None, "an image with a box defines it"
    return found.to_dict()


def same_objects(one: Objects, other: Objects) -> bool:
    """Return whether two models found the very same."""
    return all(
        np.array_equal(np.asarray(getattr(one, name)), np.asarray(getattr(other, name)))
        for name in ("images", "labels", "xyxy", "scores")
    )


def scores_of(
    drawn: DrawnScores, images: BoxedImages, found: Objects, classes: list[str], settings: Evaluate
) -> dict[str, Any]:
    """Return all scores of one model on one split with their intervals; null where no object defines one."""
    intervals = detection_intervals(drawn, method=settings.interval, confidence=settings.confidence)
    shown = int((np.asarray(found.scores) >= SHOWN_FROM).sum())
    objects = np.bincount(images.truths.labels, minlength=len(classes))
    return {
        **json_of(intervals, classes),
        "n": len(images),
        "objects": len(images.truths),
        "shown": shown,
        "support": dict(zip(classes, objects.tolist(), strict=True)),
    }


def json_of(intervals: DetectionIntervals, classes: list[str]) -> dict[str, Any]:
    """Return scores with their intervals by name, and by class and name."""
    return {
        **{name: json_interval(found) for name, found in intervals.overall.items()},
        "per_class": {
            label: {name: json_interval(found[index]) for name, found in intervals.by_class.items()}
            for index, label in enumerate(classes)
        },
    }


def json_interval(found: Interval | None) -> dict[str, float] | None:
    """Return an interval JSON-ready."""
    return None if found is None else found.to_dict()


def interval_document(scores: dict[str, Any], settings: Evaluate) -> dict[str, Any]:
    """Return every score of every model on test images with its interval, as classifiers have it."""
    numbers = ("n", "objects", "shown", "support")
    return {
        "interval": settings.interval,
        # Images have objects of several classes: they are drawn from all, whatever `evaluate.stratified` says.
        "stratified": False,
        "confidence": settings.confidence,
        "models": {
            name: {key: value for key, value in of_model["test"].items() if key not in numbers}
            for name, of_model in scores.items()
        },
    }


def write_confusion(classes: list[str], images: BoxedImages, found: Objects) -> None:
    """Write the teacher's shown test detections for `dvc plots`, class beside class, with what was missed or false."""
    outcomes = outcomes_of(match_objects(images.truths, found, len(images), len(classes)), SHOWN_FROM)
    names = np.array([*classes])
    right = names[images.truths.labels[outcomes.is_found]]
    missed = names[images.truths.labels[~outcomes.is_found]]
    false = names[found.labels[outcomes.is_false]]
    table = pa.table(
        {
            "actual": pa.array([*right, *missed, *[NOTHING] * len(false)], pa.string()),
            "predicted": pa.array([*right, *[MISSED] * len(missed), *false], pa.string()),
        }
    )
    with atomic_path(EVALUATE / "confusion.csv") as temporary:
        pyarrow.csv.write_csv(table, temporary)
