"""What the folds of a cross-validation say together where images are drawn into: by run, their spread, and pooled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from kinglet.atomic import read_json
from kinglet.evidence.cross_validation import corrected_resampled_interval
from kinglet.evidence.image_bootstrap import DrawnScores, intervals_of
from tasks.artifacts import fold_folder
from tasks.parameters import Parameters

Answers = TypeVar("Answers")


def pooled_folds(
    parameters: Parameters,
    names: tuple[str, ...],
    read: Callable[[int, int], Answers],
    scores_of: Callable[[Answers], dict[str, float]],
    draw: Callable[[list[Answers]], DrawnScores],
) -> dict[str, Any]:
    """Return the scores of the cross-validation, JSON-ready.

    names: of the scores. read: the answers that a fold of a repetition kept. scores_of: them by their names. draw: the
    scores of several folds' images together, and of resamples of these images.
    """
    settings, confidence = parameters.crossvalidate, parameters.evaluate.confidence
    answers = {(repeat, fold): read(repeat, fold) for repeat in settings.repeats for fold in settings.folds}
    facts = {key: read_json(fold_folder(*key) / "fold.json") for key in answers}
    runs: list[dict[str, Any]] = [
        {
            "repeat": repeat,
            "fold": fold,
            **{name: facts[repeat, fold][name] for name in ("n", "n_training")},
            **{name: round(float(score), 6) for name, score in scores_of(of_fold).items()},
        }
        for (repeat, fold), of_fold in answers.items()
    ]
    pooled = []
    for repeat in settings.repeats:
        drawn = draw([of_fold for (own, _), of_fold in answers.items() if own == repeat])
        found = intervals_of(drawn, confidence=confidence).overall
        known = {name: interval.to_dict() for name in names if (interval := found[name]) is not None}
        pooled.append({"repeat": repeat, **known})
    return {
        "n": sum(facts[settings.repeats[0], fold]["n"] for fold in settings.folds),
        "epochs": max(fact["epochs"] for fact in facts.values()),
        **spread_of(runs, names, len(settings.folds), confidence),
        "runs": runs,
        "pooled": pooled,
    }


def spread_of(
    runs: list[dict[str, Any]], names: Iterable[str], n_folds: int, confidence: float
) -> dict[str, dict[str, float]]:
    """Return mean, standard deviation and corrected resampled interval of scores over all runs, JSON-ready.

    runs: {name: score} of each fold of each repetition.
    """
    return {
        name: corrected_resampled_interval(
            np.array([run[name] for run in runs]), 1 / (n_folds - 1), confidence=confidence
        ).to_dict()
        for name in names
    }
