"""The gate's policy: may the challenger replace the champion? Each check by itself, and one decision from all.

A check passes, fails, or was not judged, which is said and never hidden. One that fails refuses the challenger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.mcnemar import disagreement
from kinglet.evidence.non_inferiority import NOT_ESTABLISHED, NOT_WORSE, WORSE, Verdict, score_interval, verdict

PASSED: Final = "passed"
FAILED: Final = "failed"
NOT_JUDGED: Final = "not judged"
Outcome = Literal["passed", "failed", "not judged"]
ROBUSTNESS: Final = "robustness"
CHAMPION_ROBUSTNESS: Final = "champion's robustness"

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Check:
    """What one part of the policy says.

    name: what it is about, in one or two words. reason: one sentence. figures: what it was judged by, JSON-ready.
    flagged: whether a person should read the reason although the check did not fail.
    """

    name: str
    outcome: Outcome
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)
    flagged: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the check JSON-ready."""
        return {
            "name": self.name,
            "outcome": self.outcome,
            "reason": self.reason,
            "flagged": self.flagged,
            **self.figures,
        }


@dataclass(frozen=True)
class Answers:
    """What two models answer to the same test images, as numbers of classes, each int of shape (n_images,).

    reference: what sentences call the model of `of_reference` ("champion"). same_model: both are the same file. shown:
    what sentences call what was answered.
    """

    labels: Labels
    predicted: Labels
    of_reference: Labels
    reference: str
    same_model: bool = False
    shown: str = "images"

    @property
    def right(self) -> NDArray[np.bool_]:
        """Where the challenger is right."""
        return np.asarray(self.predicted == self.labels)

    @property
    def reference_right(self) -> NDArray[np.bool_]:
        """Where the reference is right."""
        return np.asarray(self.of_reference == self.labels)


@dataclass(frozen=True)
class ClassScore:
    """What sentences say of a score that every class has.

    name: in figures. before: what stands before its value. needed: what a class has it from. nothing: the sentence
    where no class has it.
    """

    name: str
    before: str
    needed: str
    nothing: str


ACCURACY = ClassScore("accuracy", "", "a test image", "There are no test images.")


def is_accepted(checks: Sequence[Check]) -> bool:
    """Return the decision: no check failed, and at least one passed."""
    outcomes = {check.outcome for check in checks}
    return FAILED not in outcomes and PASSED in outcomes


def accuracy_check(answers: Answers, margin: float, *, accept_unestablished: bool, confidence: float) -> Check:
    """Judge whether the challenger is not less accurate than the reference by more than `margin`, on all images.

    margin: in [0, 1). accept_unestablished: whether it passes where the images are too few to tell.
    Raises ValueError without images.
    """
    found = verdict(
        answers.right, answers.reference_right, margin, same_model=answers.same_model, confidence=confidence
    )
    return verdict_check(
        "accuracy",
        found,
        answers.reference,
        answers.same_model,
        accept_unestablished=accept_unestablished,
        shown=answers.shown,
    )


def verdict_check(
    name: str,
    found: Verdict,
    reference: str,
    same_model: bool,
    *,
    accept_unestablished: bool,
    shown: str = "images",
) -> Check:
    """Judge by what a comparison with the reference established.

    name: of the score that was compared. accept_unestablished: whether it passes where the images are too few to tell.
    shown: what sentences call the images.
    """
    passed = found.verdict == NOT_WORSE or (found.verdict == NOT_ESTABLISHED and accept_unestablished)
    figures = {
        "difference": found.difference.to_dict(),
        "margin": found.margin,
        "verdict": found.verdict,
        "images": found.n,
        "images_needed": found.images_needed,
    }
    return Check(name, PASSED if passed else FAILED, difference_sentence(found, reference, same_model, shown), figures)


def difference_sentence(found: Verdict, reference: str, same_model: bool, shown: str = "images") -> str:
    """Return what the images say about the challenger's score beside the reference's, in one sentence."""
    if same_model:
        return f"The challenger is the {reference} itself."
    allowed, n = points(found.margin), f"{found.n:,} test {shown}"
    measured = f"{signed(found.difference.value)} points on {n}, at worst {signed(found.difference.low)}"
    if found.verdict == NOT_WORSE:
        return f"Shown to be at most {allowed} below the {reference}: {measured}."
    if found.verdict == WORSE:
        best = f"at best {signed(found.difference.high)}"
        return f"Shown to be more than {allowed} below the {reference}: {measured} and {best}."
    needed = (
        f"it would take about {found.images_needed:,} to tell"
        if found.images_needed
        else f"no number of {shown} would tell, since it lies right on the limit"
    )
    return f"Not established that it is at most {allowed} below the {reference}: {measured}; {needed}."


def class_floor_check(answers: Answers, classes: Sequence[str], floor: float | None) -> Check:
    """Judge whether the share of right answers is at least `floor` in every class, by the measured value."""
    shares = {
        label: float(answers.right[answers.labels == index].mean())
        for index, label in enumerate(classes)
        if (answers.labels == index).any()
    }
    return floor_check(shares, len(classes), floor, ACCURACY)


def floor_check(scores: dict[str, float], n_classes: int, floor: float | None, score: ClassScore) -> Check:
    """Judge whether a score is at least `floor` in every class, by the measured value.

    scores: {class: value in [0, 1]} of those of the `n_classes` that have one.
    """
    name = "every class"
    if floor is None:
        return Check(name, NOT_JUDGED, "No floor is set for the classes.")
    if not scores:
        return Check(name, NOT_JUDGED, score.nothing)
    worst = min(scores, key=lambda label: (scores[label], label))
    below = sorted(label for label, value in scores.items() if value < floor)
    measured = {f"worst_{score.name}": round(scores[worst], 6)}
    figures = {"floor": floor, "worst_class": worst, **measured, "below": below}
    said = f"the weakest, {worst}, has {score.before}{percent(scores[worst])}, and the floor is {percent(floor)}"
    untested = n_classes - len(scores)
    without = f"; {untested} without {score.needed}" if untested else ""
    if below:
        return Check(name, FAILED, f"Below the floor: {', '.join(below)}; {said}{without}.", figures)
    return Check(name, PASSED, f"All above the floor: {said}{without}.", figures)


def class_drop_check(answers: Answers, classes: Sequence[str], largest: float | None, *, confidence: float) -> Check:
    """Judge whether no class is established to have lost more than `largest` against the reference.

    largest: of the share of right answers, in [0, 1).
    """
    present = [index for index in range(len(classes)) if (answers.labels == index).any()]

    def differences(confidence_of_each: float) -> dict[str, Interval]:
        return {
            classes[index]: score_interval(
                disagreement(answers.right[inside], answers.reference_right[inside]),
                confidence=2 * confidence_of_each - 1,
            )
            for index in present
            for inside in [answers.labels == index]
        }

    return drop_check(differences, len(present), largest, answers.reference, answers.same_model, confidence, ACCURACY)


def drop_check(
    differences: Callable[[float], dict[str, Interval]],
    n_scored: int,
    largest: float | None,
    reference: str,
    same_model: bool,
    confidence: float,
    score: ClassScore,
) -> Check:
    """Judge whether no class is established to have lost more than `largest`, in [0, 1), against the reference.

    differences: from the confidence of each of its bounds to {class: challenger minus reference}. n_scored: classes
    that have a score. The bounds hold for all of them together (Bonferroni), so that many classes do not make one fail
    by chance.
    """
    name = "class losses"
    if largest is None:
        return Check(name, NOT_JUDGED, "No limit is set for the loss of a class.")
    if same_model:
        return Check(name, PASSED, f"The challenger is the {reference} itself.")
    if not n_scored:
        return Check(name, NOT_JUDGED, score.nothing)
    found = differences(1 - (1 - confidence) / n_scored)
    worst = min(found, key=lambda label: (found[label].value, label))
    lost = sorted(label for label, difference in found.items() if difference.high < -largest)
    figures = {"limit": largest, "worst_class": worst, "worst_difference": found[worst].to_dict(), "lost": lost}
    said = f"the worst is {worst} with {signed(found[worst].value)} points, at worst {signed(found[worst].low)}"
    if lost:
        reason = f"Lost more than {points(largest)} to the {reference}: {', '.join(lost)}; {said}."
        return Check(name, FAILED, reason, figures)
    return Check(
        name, PASSED, f"None is shown to lose more than {points(largest)} to the {reference}; {said}.", figures
    )


def robustness_check(
    difference: Interval | None,
    beyond_clean: Interval | None,
    largest: float | None,
    *,
    accept_unestablished: bool,
    reference: Literal["teacher", "champion"] = "teacher",
) -> Check:
    """Judge whether the challenger keeps the accuracy of its fp32 teacher, or of the champion, on corrupted images.

    difference: mean corruption accuracy minus theirs, paired, None where it was not measured. beyond_clean: by
    how much it differs from the same difference on clean images; where a loss beyond that is established the check is
    flagged, since clean images alone would not show it. largest: the most that may be lost, in [0, 1), None for no
    limit.
    """
    name = ROBUSTNESS if reference == "teacher" else CHAMPION_ROBUSTNESS
    if difference is None or beyond_clean is None:
        return Check(name, NOT_JUDGED, "Corrupted images were not scored for this model.")
    measured = f"{signed(difference.value)} points ({signed_between(difference)}) to the {reference} under corruption"
    flagged = beyond_clean.high < 0
    if flagged:
        measured += f", {signed(beyond_clean.value)} more than on clean ones"
    figures = {"difference": difference.to_dict(), "beyond_clean": beyond_clean.to_dict(), "limit": largest}
    if largest is None:
        return Check(name, NOT_JUDGED, f"No limit is set; measured: {measured}.", figures, flagged)
    if difference.low >= -largest:
        return Check(name, PASSED, f"Within {points(largest)}: {measured}.", figures, flagged)
    if difference.high >= -largest:
        outcome: Outcome = PASSED if accept_unestablished else FAILED
        reason = f"Not established that it stays within {points(largest)}: {measured}."
        return Check(name, outcome, reason, figures, flagged)
    return Check(name, FAILED, f"Loses more than {points(largest)}: {measured}.", figures, flagged)


def limit_check(name: str, value: float, limit: float | None, unit: str) -> Check:
    """Judge whether a measured value stays within its limit; no limit, no judgement."""
    if limit is None:
        return Check(name, NOT_JUDGED, f"No limit is set; measured: {value:.3g} {unit}.", {"value": value})
    figures = {"value": value, "limit": limit}
    if value > limit:
        return Check(name, FAILED, f"{value:.3g} {unit} is above the limit of {limit:g} {unit}.", figures)
    return Check(name, PASSED, f"{value:.3g} {unit}, within the limit of {limit:g} {unit}.", figures)


def slowdown_check(latency: Interval, of_reference: Interval, largest: float | None, reference: str) -> Check:
    """Judge whether the challenger takes at most `largest` times as long as the reference, measured in turns.

    It fails where even the favourable ends of both intervals say so: a busy machine refuses nobody.
    """
    name = "speed"
    ratio = latency.value / of_reference.value
    said = f"{latency.value:.3g} ms, {ratio:.2f} times the {of_reference.value:.3g} ms of the {reference}"
    figures: dict[str, Any] = {"ratio": round(ratio, 4), "limit": largest}
    if largest is None:
        return Check(name, NOT_JUDGED, f"No limit is set against the {reference}; measured: {said}.", figures)
    if latency.low > largest * of_reference.high:
        return Check(name, FAILED, f"{said}; at most {largest:g} times are allowed.", figures)
    return Check(name, PASSED, f"{said}; up to {largest:g} times are allowed.", figures)


def golden_check(problem: str) -> Check:
    """Judge whether the bundle answers as stored. problem: why not, as a sentence; empty if it does."""
    if problem:
        return Check("golden answers", FAILED, problem)
    return Check("golden answers", PASSED, "The bundle gives its golden answers as stored.")


def data_check(n_critical: int, n_warnings: int, most: int | None) -> Check:
    """Judge the findings of the data checks: none critical, and not more warnings than allowed (None: any)."""
    name, figures = "data quality", {"critical": n_critical, "warnings": n_warnings, "limit": most}
    said = f"{n_critical} critical findings and {n_warnings} {'warning' if n_warnings == 1 else 'warnings'}"
    if n_critical:
        return Check(name, FAILED, f"The data have {said}; a critical one refuses the model.", figures)
    if most is not None and n_warnings > most:
        return Check(name, FAILED, f"The data have {said}; at most {most} warnings are allowed.", figures)
    return Check(name, PASSED, f"The data have {said}.", figures)


def incomparable(name: str, reason: str) -> Check:
    """Return the failed check of a comparison that cannot be made; reason: one sentence."""
    return Check(name, FAILED, reason)


def points(share: float) -> str:
    """Return a share in points, in words: 1 point, 0.5 points."""
    value = round(100 * share, 6)
    return "1 point" if value == 1 else f"{value:g} points"


def signed(difference: float) -> str:
    """Return a difference of shares in points with its sign."""
    return f"{100 * difference:+.2f}"


def signed_between(interval: Interval) -> str:
    """Return the ends of an interval of differences in points with their signs."""
    return f"{signed(interval.low)} to {signed(interval.high)}"


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.1f} %"
