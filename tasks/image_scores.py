"""Scores with intervals over whole images, JSON-ready: what detectors and segmenters are told alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.image_bootstrap import DrawnScores, ImageIntervals, bounds_of_difference, intervals_of
from kinglet.evidence.image_gate import Headline
from kinglet.evidence.image_slices import SliceChange
from kinglet.evidence.non_inferiority import verdict_of_bounds
from tasks.evidence_settings import Evaluate
from tasks.parameters import Parameters


def read_intervals(drawn: DrawnScores, settings: Evaluate) -> ImageIntervals:
    """Return all scores with their intervals, as the settings want them."""
    return intervals_of(drawn, method=settings.interval, confidence=settings.confidence)


def json_of(intervals: ImageIntervals, classes: list[str]) -> dict[str, Any]:
    """Return scores with their intervals by name, and by class and name; null where nothing defines one."""
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


def defined(found: Interval | None) -> dict[str, float]:
    """Return the interval of a score that every test set defines, JSON-ready."""
    assert found is not None, "test images that show nothing are refused before"
    return found.to_dict()


def difference(own: DrawnScores, of_teacher: DrawnScores, is_same: bool, name: str, settings: Evaluate) -> Any:
    """Return the paired difference of one overall score to the teacher with its interval, JSON-ready."""
    return defined(read_intervals(own.minus(of_teacher, is_same=is_same), settings).overall[name])


def interval_document(scores: dict[str, Any], numbers: tuple[str, ...], settings: Evaluate) -> dict[str, Any]:
    """Return every score of every model on test images with its interval, as classifiers have it.

    scores: of every model, as in scores.json. numbers: what stands there beside the scores.
    """
    return {
        "interval": settings.interval,
        # Images show several classes at once: they are drawn from all, whatever `evaluate.stratified` says.
        "stratified": False,
        "confidence": settings.confidence,
        "models": {
            name: {key: value for key, value in of_model["test"].items() if key not in numbers}
            for name, of_model in scores.items()
        },
    }


def judged(difference_drawn: DrawnScores, headline: Headline, parameters: Parameters) -> dict[str, Any]:
    """Return the verdict on a model's difference to the teacher, JSON-ready."""
    confidence, column = parameters.evaluate.confidence, difference_drawn.column(headline.name)
    return verdict_of_bounds(
        bounds_of_difference(difference_drawn, column, confidence),
        int(difference_drawn.rests_on[column]),
        parameters.select.max_accuracy_drop,
        same_model=difference_drawn.is_same,
        confidence=confidence,
        power=parameters.plan.power,
    ).to_dict()


def slice_columns_of(name: str, shown: str) -> tuple[str, ...]:
    """Return the columns of slices.csv. name: of the score. shown: what images show, "objects" or "pixels"."""
    ends = ("change", "change_low", "change_high", "p", "p_corrected", "is_established")
    return ("column", "value", "images", shown, f"teacher_{name}", name, *ends)


def slice_row(item: SliceChange, name: str, shown: str) -> dict[str, Any]:
    """Return one slice as a row of slices.csv: numbers rounded, p-values to 4 digits; see `slice_columns_of`."""
    return {
        "column": item.column,
        "value": item.value,
        "images": item.n,
        shown: item.shown,
        f"teacher_{name}": round(item.of_reference, 6),
        name: round(item.of_model, 6),
        "change": round(item.change.value, 6),
        "change_low": round(item.change.low, 6),
        "change_high": round(item.change.high, 6),
        "p": float(f"{item.p:.4g}"),
        "p_corrected": float(f"{item.p_corrected:.4g}"),
        "is_established": item.is_established,
    }


def hurt_slices(by_slice: list[SliceChange], name: str, shown: str) -> dict[str, Any]:
    """Return how many slices are shown to lose, and the worst of all."""
    hurt = [item for item in by_slice if item.is_established and item.change.value < 0]
    return {"slices_hurt": len(hurt), "worst_slice": slice_row(by_slice[0], name, shown) if by_slice else None}


def comparison_head(teacher: str, headline: Headline, parameters: Parameters) -> dict[str, Any]:
    """Return what comparisons.json says of the comparison itself."""
    return {
        "teacher": teacher,
        "headline": headline.name,
        "margin": parameters.select.max_accuracy_drop,
        "confidence": parameters.evaluate.confidence,
        "power": parameters.plan.power,
        "correction": parameters.compare.correction,
    }


def control_comparisons(
    models: dict[str, Any],
    drawn: dict[str, DrawnScores],
    is_same: Callable[[str, str], bool],
    name: str,
    settings: Evaluate,
) -> list[dict[str, Any]]:
    """Return what a teacher was worth: students beside the same networks trained from the labels alone, JSON-ready.

    models: their facts, as in scores.json. drawn: the scores of each. is_same: whether two of them answered the very
    same. name: of the score whose paired difference it is.
    """
    return [
        {
            "name": student,
            "control": control,
            "difference": difference(drawn[student], drawn[control], is_same(student, control), name, settings),
        }
        for control, of_model in models.items()
        if (student := of_model["control_for"]) in drawn
    ]


def seen_and_unseen(
    seen: DrawnScores, unseen: DrawnScores, is_same: bool, name: str, settings: Evaluate
) -> dict[str, dict[str, float]]:
    """Return one overall score by models that saw the images' domains and by models that did not, JSON-ready.

    is_same: whether both answered the very same. change: the paired difference.
    """
    of_seen, of_unseen = (defined(read_intervals(drawn, settings).overall[name]) for drawn in (seen, unseen))
    return {"seen": of_seen, "unseen": of_unseen, "change": difference(unseen, seen, is_same, name, settings)}
