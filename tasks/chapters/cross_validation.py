"""The chapter `cross_validation`: how far the scores of folds lie apart, and what may be said of the recipe."""

from __future__ import annotations

from typing import Any

from kinglet.atomic import read_json
from kinglet.evidence import bootstrap
from kinglet.evidence.fold_chart import score_of_folds
from tasks.artifacts import POOL_FOLDS
from tasks.report_rows import percent

OF_CLASSES = {"accuracy": "accuracy", "f1_macro": "F1 macro"}
# Points below the teacher from where on the folds say little about it.
FAR_BELOW = 0.02


def chapter(
    teacher: dict[str, Any], confidence: float, words: dict[str, str] = OF_CLASSES, resamples: int = bootstrap.RESAMPLES
) -> dict[str, Any] | None:
    """Return what the template shows, None without folds.

    teacher: its scores by split, as in scores.json. words: {score: its word}; the first is drawn. resamples: of all
    images, that the intervals are from.
    """
    scores = read_json(POOL_FOLDS / "scores.json")
    if not scores["folds"]:
        return None
    drawn, word = next(iter(words.items()))
    reference, mean = teacher["test"][drawn]["value"], scores[drawn]
    of_folds = [run[drawn] for run in scores["runs"]]
    charts = {
        name: score_of_folds(of_folds, mean, reference, width=width, word=word)
        for name, width in (("wide", 900), ("narrow", 380))
    }
    return {
        **scores,
        "confidence": confidence,
        "resamples": resamples,
        "words": words,
        "charts": charts,
        "far": remark(reference - mean["value"], scores["epochs"]),
    }


def remark(gap: float, epochs: float) -> str:
    """Return a sentence where the folds' short trainings lie too far below the teacher to stand for it."""
    if gap <= FAR_BELOW:
        return ""
    return (
        f"The folds were trained for {epochs:g} epochs only and lie {percent(gap, 1)} points below the teacher: they "
        "say how much scores differ from fold to fold, and little about how good the teacher is. "
        "crossvalidate.epochs trains them longer."
    )
