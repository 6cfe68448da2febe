"""What the page says of models whose score images are resampled for: detectors and segmenters alike."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from kinglet.atomic import read_json
from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.charts import Point, accuracy_against_latency
from kinglet.evidence.corruptions.kinds import KINDS
from kinglet.evidence.forest_chart import Line, forest
from kinglet.evidence.image_gate import Headline
from kinglet.evidence.non_inferiority import NOT_WORSE, WORSE
from tasks.artifacts import BENCHMARK, CHECK_DATA, COMPARE, EVALUATE, ROBUSTNESS, SELECT, SPLIT
from tasks.chapters import adaptation, by_domain, domains, verdict
from tasks.chapters.comparisons import VERDICT_STYLES
from tasks.chapters.data import findings, read_quarantine
from tasks.chapters.settings import settings_rows
from tasks.chapters.slices import CORRECTIONS, read_rows
from tasks.parameters import Parameters
from tasks.report_page import MAX_LISTED
from tasks.report_rows import count_rows, model_rows, signed, unsettled

SPLITS = ("train", "validation", "test", "sealed", "adaptation", "target_test")
MAX_SLICES = 12


@dataclass(frozen=True)
class Words:
    """How a page calls the scores of its problem.

    headline: the score that models are judged by. columns: {score: its word} of those beside it in the tables. scores:
    {score: its word} of all. shown: what images show, in the artifacts. lead: how it was scored, after "every model as
    the ONNX file it would be served from". key: below the table of all scores. how: where the page says how it was
    measured. counted: what the table of counts counts. packages: whose versions matter beside the usual ones.
    """

    headline: Headline
    columns: dict[str, str]
    scores: dict[str, str]
    shown: str
    lead: str
    key: str
    how: str
    counted: str
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What the steps left that a page is made from: contents of scores.json, choice.json and comparisons.json."""

    evaluation: dict[str, Any]
    choice: dict[str, Any]
    comparisons: dict[str, Any]

    @property
    def teacher(self) -> str:
        """The name of the teacher."""
        return str(self.evaluation["teacher"])

    @property
    def chosen(self) -> str:
        """The name of the chosen model."""
        return str(self.choice["chosen"])

    @property
    def names(self) -> list[str]:
        """The teacher and the chosen model, once if they are one."""
        return list(dict.fromkeys([self.teacher, self.chosen]))


def read_found() -> Found:
    """Return what the steps left."""
    return Found(
        read_json(EVALUATE / "scores.json"), read_json(SELECT / "choice.json"), read_json(COMPARE / "comparisons.json")
    )


def page_of(found: Found, words: Words, parameters: Parameters) -> dict[str, Any]:
    """Return what the templates show of all problems."""
    latency, counts = read_json(BENCHMARK / "latency.json"), read_json(SPLIT / "counts.json")
    classes, teacher, chosen = found.evaluation["classes"], found.teacher, found.chosen
    scores, headline = found.evaluation["models"], words.headline
    rows = model_rows(scores, latency["models"], teacher, chosen, found.choice["front"])
    counted = {split: counts[split] for split in SPLITS if split in counts}
    test = scores[chosen]["test"]
    return {
        "title": parameters.report.title,
        "gate": verdict.chapter(),
        "verdict": headline_of(rows, teacher, chosen, found.comparisons, headline.word),
        "word": "teacher",
        "chosen_word": "chosen",
        "rows": rows,
        "chosen": rows[chosen],
        "teacher": rows[teacher],
        "confidence": parameters.evaluate.confidence,
        "reason": found.choice["reason"],
        "score": {
            "name": headline.name,
            "word": headline.word,
            "columns": [{"name": name, "word": word} for name, word in words.columns.items()],
            "shown": words.shown.capitalize(),
            "lead": words.lead,
            "key": words.key,
            "how": words.how,
        },
        "scored_on": f"{test[words.shown]:,} {words.shown} on {test['n']:,} images",
        "charts": charts(rows, scores, teacher, headline, parameters),
        "comparisons": comparison_chapter(found.comparisons, chosen, headline.word),
        "controls": control_rows(found.comparisons["controls"], rows),
        "scores": score_rows(chosen, teacher, words.scores),
        "by_domain": by_domain.chapter(scores, teacher, chosen, headline.name, headline.word),
        "slices": slice_chapter(found.comparisons, chosen, headline.name, words.shown),
        "robustness": robustness_chapter(teacher, chosen, words.shown),
        "adaptation": adaptation.chapter(parameters.evaluate.confidence),
        "domains": domains.chapter(parameters.evaluate.confidence),
        "findings": findings(read_json(CHECK_DATA / "checks.json")),
        "quarantined": read_quarantine(CHECK_DATA / "quarantine.csv"),
        "max_listed": MAX_LISTED,
        "counted": words.counted,
        "counts": count_rows(counted, classes, tuple(counted)),
        "splits": tuple(counted),
        "settings": settings_rows(parameters),
        "benchmark": latency,
        "versions": {
            "Python": platform.python_version(),
            **{name: version(name) for name in ("onnxruntime", "numpy", "pillow", *words.packages)},
        },
    }


def control_rows(controls: list[dict[str, Any]], rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the models that have a control beside them, as `compare` left them. rows: of all models."""
    return [
        {**control, "kind": rows[control["name"]]["kind"], "made": rows[control["control"]]["made"]}
        for control in controls
    ]


def headline_of(
    rows: dict[str, Any], teacher: str, chosen: str, comparisons: dict[str, Any], word: str
) -> dict[str, str]:
    """Return the headline sentence and what may be claimed from the test images. word: for the score."""
    if chosen == teacher:
        return {
            "headline": f"Nothing smaller fits the budget: {teacher}, the teacher itself, is the model to ship.",
            "claim": f"No other model was within the limits on speed, size and {word} on the validation images.",
        }
    row, judged, n = rows[chosen], comparisons["models"][chosen], comparisons["test_images"]
    difference = Interval(**judged["difference"])
    change = f"{abs(100 * difference.value):.2f} points of {word} {'below' if difference.value < 0 else 'above'} it"
    if difference.value == 0:
        change = f"of the same {word}"
    if difference.low <= 0 <= difference.high:
        change = "not measurably worse" if judged["verdict"] == NOT_WORSE else unsettled(change, n)
    said = f"{chosen} is {row['speedup']:.1f} times as fast as the teacher, {row['shrink']:.1f} times smaller"
    margin = f"{100 * judged['margin']:g} {'point' if judged['margin'] == 0.01 else 'points'} of {word}"
    at_worst = f"{signed(judged['at_worst'])} points at worst"
    if judged["verdict"] == NOT_WORSE:
        claim = f"Established on {n:,} test images: it loses at most {margin} to the teacher ({at_worst})."
    elif judged["verdict"] == WORSE or judged["would_show"] != NOT_WORSE:
        claim = f"On the test images it lies beyond the {margin} that the budget allows ({at_worst})."
    else:
        claim = (
            f"Not established: that it loses at most {margin} to the teacher. {n:,} test images leave {at_worst}; "
            f"it would take about {judged['images_needed']:,}."
        )
    return {"headline": f"{said} and {change}.", "claim": claim}


def charts(
    rows: dict[str, Any], scores: dict[str, Any], teacher: str, headline: Headline, parameters: Parameters
) -> dict[str, str]:
    """Return the chart of the score against latency, for a wide and for a narrow page."""
    points = [
        Point(
            name,
            Interval(row["p50_ms"], row["p50_low_ms"], row["p50_high_ms"]),
            Interval(**scores[name]["validation"][headline.name]),
            row["kind"],
        )
        for name, row in rows.items()
    ]
    limits: dict[str, Any] = {
        "lowest_accuracy": scores[teacher]["validation"][headline.name]["value"] - parameters.select.max_accuracy_drop,
        "highest_latency_ms": parameters.select.latency_ms,
        "score": headline.word,
    }
    return {
        "wide": accuracy_against_latency(points, width=900, height=430, **limits),
        "narrow": accuracy_against_latency(points, width=380, height=380, **limits),
    }


def comparison_chapter(comparisons: dict[str, Any], chosen: str, word: str) -> dict[str, Any] | None:
    """Return what the images prove of every model beside the teacher; None where there is no other model."""
    rows = [
        {**row, "name": name, "kind": "chosen" if name == chosen else "", "style": VERDICT_STYLES[row["verdict"]]}
        for name, row in sorted(comparisons["models"].items())
    ]
    if not rows:
        return None
    lines = [
        Line(row["name"], Interval(row["difference"]["value"], row["at_worst"], row["at_best"]), row["kind"] or "other")
        for row in rows
    ]
    title, axis = f"{word} of every model minus that of the teacher", "points against the teacher"
    margin = comparisons["margin"]
    return {
        **comparisons,
        "rows": rows,
        "charts": {
            name: forest(lines, width, title, axis, -margin) for name, width in (("wide", 900), ("narrow", 380))
        },
    }


def score_rows(chosen: str, teacher: str, words: dict[str, str]) -> list[dict[str, Any]]:
    """Return every score of the teacher and the chosen model with its interval, and their paired difference."""
    scores = read_json(EVALUATE / "intervals.json")["models"]
    differences = {} if chosen == teacher else read_json(COMPARE / "differences.json")[chosen]
    return [
        {
            "name": word,
            "teacher": scores[teacher][score],
            "chosen": scores[chosen][score],
            "difference": differences.get(score),
        }
        for score, word in words.items()
        if scores[teacher][score]
    ]


def slice_chapter(comparisons: dict[str, Any], chosen: str, name: str, shown: str) -> dict[str, Any] | None:
    """Return the parts of the images on which the chosen model loses most; None where there are none."""
    rows = [with_change(row, name, shown) for row in read_rows() if row["model"] == chosen]
    if not rows:
        return None
    return {
        "rows": rows[:MAX_SLICES],
        "n": len(rows),
        "n_hurt": comparisons["models"][chosen]["slices_hurt"],
        "correction": CORRECTIONS[comparisons["correction"]],
    }


def with_change(row: dict[str, str], name: str, shown: str) -> dict[str, Any]:
    """Return a row of slices.csv with its numbers as numbers; name, shown: as for `slice_columns_of`."""
    change = {
        end: float(row[column]) for end, column in (("value", "change"), ("low", "change_low"), ("high", "change_high"))
    }
    return {
        **row,
        "of_teacher": float(row[f"teacher_{name}"]),
        "of_model": float(row[name]),
        "p_corrected": float(row["p_corrected"]),
        "images": int(row["images"]),
        "shown": int(row[shown]),
        "change": change,
        "is_established": row["is_established"] == "True",
    }


def robustness_chapter(teacher: str, chosen: str, what: str) -> dict[str, Any]:
    """Return what corrupted images say of every model, and kind by kind of the teacher and the chosen one."""
    found = read_json(ROBUSTNESS / "scores.json")
    models = found["models"]
    shown = [name for name in dict.fromkeys([teacher, chosen]) if name in models]
    return {
        **found,
        "shown": shown,
        "counted": f"{found['images']:,} of the {found['test_images']:,} test images with {found[what]:,} {what}",
        "kinds": [
            {"name": kind.replace("_", " "), "scores": [float(np.mean(models[name]["kinds"][kind])) for name in shown]}
            for kind in KINDS
        ],
    }
