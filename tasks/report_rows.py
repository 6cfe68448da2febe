"""The rows of the report's tables, and the sentence at its top: from scores and latencies, nothing measured here."""

from __future__ import annotations

from typing import Any

import numpy as np

from kinglet.evidence.bootstrap import Interval, paired_interval
from kinglet.evidence.non_inferiority import NOT_WORSE, WORSE, Verdict

# Wider ones are unreadable: the most frequent confusions are listed instead.
MAX_MATRIX_CLASSES = 20
MINUS, EN_DASH = "\u2212", "\u2013"
STEP_WORDS = {
    "finetune": "fine-tuned",
    "distill": "distilled",
    "prune": "pruned",
    "quantize": "quantized",
    "export": "converted",
}
CONTROL_WORDS = {"distill": "trained from labels alone", "prune": "dense, trained as long"}


def percent(share: float, digits: int = 2) -> str:
    """Return a share in percent, without the sign."""
    return f"{100 * share:.{digits}f}"


def signed(difference: float, digits: int = 2) -> str:
    """Return a difference of shares in points, with a typographic sign; zero has none."""
    rounded = round(100 * difference, digits)
    return f"{'+' if rounded > 0 else MINUS if rounded < 0 else ''}{abs(rounded):.{digits}f}"


def between(interval: dict[str, float], digits: int = 2) -> str:
    """Return an interval of shares in percent."""
    return f"{percent(interval['low'], digits)}{EN_DASH}{percent(interval['high'], digits)}"


def signed_between(interval: dict[str, float], digits: int = 2) -> str:
    """Return an interval of differences in points."""
    return f"{signed(interval['low'], digits)} to {signed(interval['high'], digits)}"


def model_rows(
    scores: dict[str, Any], latencies: dict[str, Any], reference: str, chosen: str, front: list[str]
) -> dict[str, dict[str, Any]]:
    """Return one row per model, slowest first."""
    rows = {}
    for name in sorted(scores, key=lambda name: (-latencies[name]["p50_ms"], name)):
        kind = "chosen" if name == chosen else "teacher" if name == reference else "front" if name in front else "other"
        rows[name] = {
            **scores[name],
            **latencies[name],
            "name": name,
            "kind": kind,
            "made": words_for(scores[name]),
            "size_mb": latencies[name]["size_bytes"] / 1e6,
            "speedup": latencies[reference]["p50_ms"] / latencies[name]["p50_ms"],
            "shrink": latencies[reference]["size_bytes"] / latencies[name]["size_bytes"],
        }
    return rows


def words_for(scores: dict[str, Any]) -> str:
    """Return what was done to make a model."""
    words = CONTROL_WORDS if scores["control_for"] else STEP_WORDS
    return words.get(scores["step"], scores["step"])


def verdict(
    rows: dict[str, Any],
    reference: str,
    chosen: str,
    scores: dict[str, Any],
    judged: Verdict,
    word: str = "teacher",
    several: str = "images",
) -> dict[str, str]:
    """Return the headline sentence and what may be claimed from the test images.

    judged: of the chosen model against the reference, on test images. word: for the reference. several: for the images.
    """
    if chosen == reference:
        return {
            "headline": f"Nothing smaller fits the budget: {reference}, the {word} itself, is the model to ship.",
            "claim": f"No other model was within the limits on speed, size and accuracy on the validation {several}.",
        }
    row, n = rows[chosen], scores[chosen]["test"]["n"]
    difference = Interval(**scores[chosen]["difference_to_teacher"]["test"])
    speed, size = f"{row['speedup']:.1f} times as fast as the {word}", f"{row['shrink']:.1f} times smaller"
    change = f"{abs(100 * difference.value):.2f} points {'less' if difference.value < 0 else 'more'} accurate"
    if difference.value == 0:
        change = "as accurate"
    if difference.low <= 0 <= difference.high:
        change = "not measurably less accurate" if judged.verdict == NOT_WORSE else unsettled(change, n, several)
    bounds = f"{signed(difference.low)} to {signed(difference.high)}"
    allowed = "1 point" if round(100 * judged.margin, 6) == 1 else f"{100 * judged.margin:g} points"
    at_worst = f"{abs(100 * judged.difference.low):.2f} points below it at worst"
    if difference.low > 0:
        claim = f"Established on {n:,} test {several}: it is more accurate than the {word} ({bounds} points)."
    elif judged.verdict == NOT_WORSE:
        claim = f"Established on {n:,} test {several}: it stays within {allowed} of the {word} ({at_worst})."
    elif judged.verdict == WORSE or judged.would_show != NOT_WORSE:
        claim = f"On the test {several} it lies beyond the {allowed} that the budget allows ({bounds})."
    else:
        claim = (
            f"Not established: that it stays within {allowed} of the {word}. {n:,} test {several} "
            f"leave {at_worst}; it would take about {judged.images_needed:,}."
        )
    return {"headline": f"{chosen} is {speed}, {size} and {change}.", "claim": claim}


def unsettled(change: str, n: int, several: str = "images") -> str:
    """Return what a change looks like on so many test images that could show the contrary as well."""
    return f"{change}, which {n:,} test {several} do not settle"


def step_rows(rows: dict[str, Any], answers: dict[str, Any], confidence: float, seed: int) -> list[dict[str, Any]]:
    """Return what each step did to each model, against its parent: paired difference of test accuracy, speed, size."""
    steps = []
    for name, row in rows.items():
        parent = rows.get(row["parent"])
        if parent is None:
            continue
        steps.append(
            {
                "name": name,
                "kind": row["kind"],
                "made": row["made"],
                "parent": parent["name"],
                **difference_on_test(answers, name, parent["name"], confidence, seed),
                "speedup": parent["p50_ms"] / row["p50_ms"],
                "shrink": parent["size_bytes"] / row["size_bytes"],
            }
        )
    order = {word: position for position, word in enumerate(STEP_WORDS.values())}
    return sorted(steps, key=lambda step: (order.get(step["made"], 9), step["name"]))


def control_rows(rows: dict[str, Any], answers: dict[str, Any], confidence: float, seed: int) -> list[dict[str, Any]]:
    """Return the models that have a control beside them: paired difference of test accuracy, speed against it."""
    return [
        {
            "name": rows[control["control_for"]]["name"],
            "kind": rows[control["control_for"]]["kind"],
            "control": name,
            "made": control["made"],
            **difference_on_test(answers, control["control_for"], name, confidence, seed),
            "speedup": control["p50_ms"] / rows[control["control_for"]]["p50_ms"],
        }
        for name, control in sorted(rows.items())
        if control["control_for"] in rows
    ]


def difference_on_test(answers: dict[str, Any], one: str, other: str, confidence: float, seed: int) -> dict[str, Any]:
    """Return the paired difference of two models' test accuracy, and whether it is established."""
    right = (answers[name]["predicted"] == answers[name]["label"] for name in (one, other))
    difference = paired_interval(*right, confidence=confidence, seed=seed)
    return {"difference": difference.to_dict(), "established": not difference.low <= 0 <= difference.high}


def matrices(scores: dict[str, Any], classes: list[str], teacher: str, chosen: str) -> list[dict[str, Any]]:
    """Return the confusion matrices on test images, each cell as count and share of its row; none for many classes."""
    if len(classes) > MAX_MATRIX_CLASSES:
        return []
    found = []
    for name in dict.fromkeys((teacher, chosen)):
        counts = np.array(scores[name]["test"]["confusion"])
        shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        lines = [
            {
                "label": label,
                "cells": [
                    {"count": int(count), "share": float(share), "right": row == column}
                    for column, (count, share) in enumerate(zip(counts[row], shares[row], strict=True))
                ],
            }
            for row, label in enumerate(classes)
        ]
        found.append({"name": name, "lines": lines, "classes": classes, "is_chosen": name == chosen})
    return found


def frequent_confusions(confusion: list[list[int]], classes: list[str], count: int = 10) -> list[dict[str, Any]]:
    """Return the most frequent mistakes: label, prediction, how often, and the share of the label's images."""
    counts = np.array(confusion)
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [(int(cell) // len(counts), int(cell) % len(counts)) for cell in order]
    return [
        {
            "label": classes[row],
            "predicted": classes[column],
            "count": int(wrong[row, column]),
            "share": float(wrong[row, column] / counts[row].sum()),
        }
        for row, column in pairs
        if wrong[row, column]
    ]


def class_rows(scores: dict[str, Any], classes: list[str], teacher: str, chosen: str) -> list[dict[str, Any]]:
    """Return the test scores of every class under the teacher and the chosen model, weakest first."""
    of_teacher, of_chosen = scores[teacher]["test"]["per_class"], scores[chosen]["test"]["per_class"]
    rows = [
        {
            "label": label,
            "support": of_chosen[label]["support"],
            "teacher": of_teacher[label],
            "chosen": of_chosen[label],
            "change": of_chosen[label]["f1"] - of_teacher[label]["f1"],
        }
        for label in classes
        if of_chosen[label]["support"]
    ]
    return sorted(rows, key=lambda row: (row["chosen"]["f1"], row["label"]))


def count_rows(counts: dict[str, dict[str, int]], classes: list[str], splits: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the number of images of every class and split, and each class's bar in percent of the largest."""
    of_class = {label: [counts.get(split, {}).get(label, 0) for split in splits] for label in classes}
    largest = max(map(sum, of_class.values()), default=0) or 1
    return [
        {"label": label, "counts": row, "total": sum(row), "bars": [100 * count / largest for count in row]}
        for label, row in of_class.items()
    ]
