"""Score every detector on the held-out images, by COCO's rules, each score with its interval over images."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from kinglet.atomic import atomic_path, read_json, write_json
from kinglet.evidence.detection_matches import Objects, match_objects
from kinglet.evidence.detection_outcomes import outcomes_of
from kinglet.evidence.image_bootstrap import DrawnScores
from kinglet.runtime.detection import SHOWN_FROM
from tasks.artifacts import EVALUATE, SPLIT, model_folders, read_card
from tasks.detection_answers import BoxedImages, find_objects, open_detector, read_boxed, write_predictions
from tasks.detection_scores import HEADLINE, draw, headline_at
from tasks.detection_without_vnni import scores_without_vnni
from tasks.domain_scores import Score, places_by_domain, scores_by_domain
from tasks.evidence_settings import Evaluate
from tasks.image_scores import difference, interval_document, json_of, read_intervals
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.scored_models import HELD_OUT, facts_of, report_rows, teacher_name

# What stands beside the scores of a part.
NUMBERS = ("n", "objects", "shown", "support")
# In confusion.csv: an object that nothing found, and a detection of nothing.
MISSED, NOTHING = "(missed)", "(nothing)"


def score_detectors(parameters: Parameters) -> None:
    """Write what the detectors find in held-out images, and what that is worth."""
    classes, teacher = read_json(SPLIT / "classes.json"), teacher_name()
    images = {split: read_boxed(split, classes) for split in HELD_OUT}
    folders, per_model = model_folders(), sum(map(len, images.values()))
    cards, found = {}, dict[str, dict[str, Objects]]()
    without_vnni: dict[str, dict[str, Any]] = {}
    with progress("evaluate") as report:
        for position, folder in enumerate(folders):
            card = read_card(folder)
            detector, done = open_detector(folder, classes), position * per_model
            cards[card.name], found[card.name] = card, {}
            for split, of_split in images.items():
                rows = partial(report_rows, report, folder.name, done, len(folders) * per_model)
                found[card.name][split] = find_objects(detector, of_split, str(folder), rows)
                done += len(of_split)
            without_vnni[card.name] = scores_without_vnni(folder, card, images["test"], len(classes), parameters)
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
            **without_vnni[name],
            **{
                split: scores_of(of_split, images[split], found[name][split], classes, parameters.evaluate)
                for split, of_split in drawn[name].items()
            },
            "difference_to_teacher": {
                split: difference(
                    of_split,
                    drawn[teacher][split],
                    found[name][split].is_same(found[teacher][split]),
                    HEADLINE,
                    parameters.evaluate,
                )
                for split, of_split in drawn[name].items()
            },
        }
        for name in found
    }
    test = images["test"]

    def score_of(name: str) -> Score:
        return lambda places: headline_at(places, test, found[name]["test"], len(classes), parameters)

    scores = scores_by_domain(places_by_domain(test.rows), scores, HEADLINE, score_of)
    write_json(EVALUATE / "intervals.json", interval_document(scores, NUMBERS, parameters.evaluate))
    write_predictions(images, found)
    write_confusion(classes, images["test"], found[teacher]["test"])
    document = {"classes": classes, "teacher": teacher, "headline": HEADLINE, "shown_from": SHOWN_FROM}
    write_json(EVALUATE / "scores.json", {**document, "models": scores})


def scores_of(
    drawn: DrawnScores, images: BoxedImages, found: Objects, classes: list[str], settings: Evaluate
) -> dict[str, Any]:
    """Return all scores of one model on one split with their intervals; null where no object defines one."""
    shown = int((np.asarray(found.scores) >= SHOWN_FROM).sum())
    objects = np.bincount(images.truths.labels, minlength=len(classes))
    return {
        **json_of(read_intervals(drawn, settings), classes),
        "n": len(images),
        "objects": len(images.truths),
        "shown": shown,
        "support": dict(zip(classes, objects.tolist(), strict=True)),
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
