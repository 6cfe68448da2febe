"""Intervals for every score of a classifier, and for every difference between two classifiers on the same images.

Scores that follow from a confusion matrix are resampled as its cells. Calibration error and log loss depend on
every confidence by itself: for them the images are drawn, once for all models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from kinglet.evidence.bootstrap import (
    CELLS_PER_BLOCK,
    RESAMPLES,
    Counts,
    Interval,
    Method,
    bca_bounds,
    bootstrap_intervals,
    cells_of,
    enclosing,
    joined,
    paired_interval,
    require_examples,
    within,
)
from kinglet.evidence.metrics import SMALLEST_PROBABILITY, Labels, Probabilities, check_labels, in_top_k, ratio

CLASS_SCORES = ("precision", "recall", "f1")
MEANS = tuple(f"{name}_{mean}" for mean in ("macro", "weighted") for name in CLASS_SCORES)
CONFUSION_SCORES = ("accuracy", *MEANS)
IMAGE_SCORES = ("ece", "log_loss")


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    stratified: the images are drawn anew within their class, so that the class mix stays that of the data set.
    """

    method: Method = "percentile"
    stratified: bool = True
    confidence: float = 0.95
    resamples: int = RESAMPLES
    seed: int = 0


@dataclass(frozen=True)
class ScoreIntervals:
    """Scores with their intervals. overall: by name. by_class: precision, recall and f1, one for each class."""

    overall: dict[str, Interval]
    by_class: dict[str, list[Interval]]


def score_intervals(
    labels: Labels,
    probabilities: dict[str, Probabilities],
    *,
    top_k: int = 1,
    n_bins: int = 15,
    resampling: Resampling = Resampling(),
) -> dict[str, ScoreIntervals]:
    """Return every score of every model with its interval: {model: scores}.

    labels: integers in [0, n_classes), shape (n_images,). probabilities: {model: float (n_images, n_classes)}.
    Overall scores are those of CONFUSION_SCORES, top_K_accuracy, ece and log_loss. Where all of a class (or of all)
    is right, or none, resampling shows no spread; the exact binomial bound takes its place. A score that no image
    defines (the recall of a class without images) is 0 with an interval from 0 to 1.
    Raises ValueError for wrong labels and without images.
    """
    drawn_scores = image_score_intervals(labels, probabilities, n_bins, resampling)
    found = {}
    for name, of_model in probabilities.items():
        n_classes = of_model.shape[1]
        check_labels(labels, len(of_model), n_classes)
        intervals, rests_on = confusion_intervals(labels, (of_model.argmax(axis=1),), n_classes, resampling)
        whole = [within(*pair, resampling.confidence) for pair in zip(intervals, rests_on, strict=True)]
        hits = in_top_k(labels, of_model, top_k)
        top = share_interval(labels, hits.astype(np.int64), resampling)
        top = top if top_k >= n_classes else within(top, len(labels), resampling.confidence)
        found[name] = gather(whole, n_classes, {f"top_{top_k}_accuracy": top, **drawn_scores[name]})
    return found


def difference_intervals(
    labels: Labels,
    probabilities: dict[str, Probabilities],
    reference: str,
    *,
    top_k: int = 1,
    n_bins: int = 15,
    resampling: Resampling = Resampling(),
) -> dict[str, ScoreIntervals]:
    """Return how every score of every other model differs from the reference's, paired: {model: differences}.

    A difference is the model's score minus the reference's over the same images; intervals come from drawing the same
    images for both. Models with the reference's very outputs differ by exactly 0, with an interval of no width.
    labels, probabilities: as for `score_intervals`.
    Raises ValueError for wrong labels and without images.
    """
    of_reference = probabilities[reference]
    n_classes = of_reference.shape[1]
    check_labels(labels, len(of_reference), n_classes)
    drawn_scores = image_score_intervals(labels, probabilities, n_bins, resampling, reference)
    found = {}
    for name, of_model in probabilities.items():
        if name == reference:
            continue
        answers = (of_model.argmax(axis=1), of_reference.argmax(axis=1))
        intervals, _ = confusion_intervals(labels, answers, n_classes, resampling)
        hits, hits_of_reference = (
            in_top_k(labels, values, top_k).astype(np.int64) for values in (of_model, of_reference)
        )
        top = share_interval(labels, hits - hits_of_reference, resampling)
        others = {f"top_{top_k}_accuracy": top, **drawn_scores[name]}
        right, right_of_reference = (answer == labels for answer in answers)
        if np.array_equal(right, right_of_reference) and not np.array_equal(of_model, of_reference):
            others["accuracy"] = paired_interval(right, right_of_reference, confidence=resampling.confidence)
        found[name] = gather(intervals, n_classes, others)
    return found


def gather(intervals: list[Interval], n_classes: int, others: dict[str, Interval]) -> ScoreIntervals:
    """Return the intervals of a confusion matrix's scores by name, with the others beside them."""
    n_overall = len(CONFUSION_SCORES)
    parts = [intervals[n_overall + n_classes * part :][:n_classes] for part in range(len(CLASS_SCORES))]
    overall = dict(zip(CONFUSION_SCORES, intervals, strict=False))
    return ScoreIntervals({**overall, **others}, dict(zip(CLASS_SCORES, parts, strict=True)))


def confusion_intervals(
    labels: Labels, answers: tuple[Labels, ...], n_classes: int, resampling: Resampling
) -> tuple[list[Interval], list[int]]:
    """Return the scores of one model's answers, or of the first's minus those of the second's, and what they rest on.

    The scores are CONFUSION_SCORES, then precision, recall and F1 of every class; the second result is the number of
    images that each comes from in the first model's confusion matrix.
    """
    cells, examples = cells_of(labels, *answers, strata=labels if resampling.stratified else None)
    scores = [count_scores(labels[examples], predicted[examples], n_classes) for predicted in answers]

    def statistic(counts: Counts) -> NDArray[np.float64]:
        first, *others = [of_model(counts) for of_model in scores]
        return first - others[0] if others else first

    found = bootstrap_intervals(
        statistic,
        cells,
        method=resampling.method,
        confidence=resampling.confidence,
        resamples=resampling.resamples,
        seed=resampling.seed,
    )
    support, predicted = (np.bincount(values, minlength=n_classes).tolist() for values in (labels, answers[0]))
    return found, [cells.n] * len(CONFUSION_SCORES) + predicted + support + support


def count_scores(labels: Labels, predicted: Labels, n_classes: int) -> Callable[[Counts], NDArray[np.float64]]:
    """Return the function from counts of cells, float64 (m, n_cells), to scores, float64 (m, 7 + 3 n_classes).

    labels, predicted: of each cell, integers (n_cells,). The scores are CONFUSION_SCORES, then precision, recall and
    F1 of every class; 0 where a ratio is undefined, and macro means over the classes with examples.
    """
    cells = np.arange(len(labels))
    # Sparse: with a thousand classes, a cell still belongs to one row and one column.
    of_label, of_answer = (
        csr_array((np.ones(len(cells)), (cells, np.asarray(classes, np.int64))), shape=(len(cells), n_classes))
        for classes in (labels, predicted)
    )
    of_right = of_label.multiply(of_answer).tocsr()

    def scores(counts: Counts) -> NDArray[np.float64]:
        support, answered, right = counts @ of_label, counts @ of_answer, counts @ of_right
        by_class = np.stack([ratio(right, answered), ratio(right, support), ratio(2 * right, support + answered)])
        present, total = support > 0, support.sum(axis=1)
        accuracy = ratio(right.sum(axis=1), total)
        macro = ratio((by_class * present).sum(axis=2), np.broadcast_to(present.sum(axis=1), by_class.shape[:2]))
        weighted = ratio((by_class * support).sum(axis=2), np.broadcast_to(total, by_class.shape[:2]))
        overall = np.column_stack([accuracy, *macro, *weighted])
        return np.concatenate([overall, *by_class], axis=1)

    return scores


def share_interval(labels: Labels, values: NDArray[np.int64], resampling: Resampling) -> Interval:
    """Return the mean of small integers, one for each image, with its interval."""
    cells, examples = cells_of(values, strata=labels if resampling.stratified else None)
    of_cell = values[examples][:, None].astype(np.float64)
    (found,) = bootstrap_intervals(
        lambda counts: counts @ of_cell / cells.n,
        cells,
        method=resampling.method,
        confidence=resampling.confidence,
        resamples=resampling.resamples,
        seed=resampling.seed,
    )
    return found


def image_score_intervals(
    labels: Labels,
    probabilities: dict[str, Probabilities],
    n_bins: int,
    resampling: Resampling,
    reference: str | None = None,
) -> dict[str, dict[str, Interval]]:
    """Return calibration error and log loss of every model, or their differences to the reference's.

    The calibration error of few images is too high, and that of their resamples higher still. Its interval is
    therefore the union of the percentile interval and the basic one, which turns the excess round: it holds the truth
    at least as often as it says unless the model is calibrated all but perfectly. Of differences, percentile or BCa.
    Source: Davison and Hinkley 1997, section 5.2, for the basic interval.
    """
    n, names = require_examples(len(labels)), list(probabilities)
    of_images = [image_sums(labels, probabilities[name], n_bins) for name in names]
    sums = np.concatenate(of_images, axis=1)
    # A product of matrices adds up in another order for every column, on some processors.
    same = [reference is not None and np.array_equal(item, of_images[names.index(reference)]) for item in of_images]

    def scores(totals: NDArray[np.floating[Any]], of_examples: int) -> NDArray[np.float64]:
        """From sums (m, n_models * (n_bins + 1)) to (m, n_models, 2), differences where there is a reference."""
        by_model = np.asarray(totals, np.float64).reshape(len(totals), len(names), n_bins + 1) / of_examples
        found = np.stack([np.abs(by_model[:, :, :-1]).sum(axis=2), by_model[:, :, -1]], axis=2)
        if reference is None:
            return found
        differences: NDArray[np.float64] = found - found[:, [names.index(reference)]]
        differences[:, same] = 0
        return differences

    weights = draw_weights(labels if resampling.stratified else np.zeros_like(labels), resampling)
    drawn = np.concatenate([scores(block @ sums.astype(np.float32), n) for block in weights]).reshape(
        -1, 2 * len(names)
    )
    total = sums.sum(axis=0)
    values = scores(total[None], n).reshape(-1)
    tails = [(1 - resampling.confidence) / 2, (1 + resampling.confidence) / 2]
    lows, highs = np.quantile(drawn, tails, axis=0)
    if resampling.method == "bca":
        left_out = scores(total - sums, n - 1).reshape(n, -1) if n > 1 else values[None]
        influence = (n - 1) * (left_out.mean(axis=0) - left_out)
        accelerations = ratio((influence**3).sum(axis=0), 6 * (influence**2).sum(axis=0) ** 1.5)
        bca_lows, bca_highs = bca_bounds(values, drawn, accelerations, resampling.confidence)
    found: dict[str, dict[str, Interval]] = {}
    for column, value in enumerate(values.tolist()):
        name, score = names[column // 2], IMAGE_SCORES[column % 2]
        low, high = float(lows[column]), float(highs[column])
        if score == "ece" and reference is None:
            interval = enclosing(value, min(low, 2 * value - high), max(high, 2 * value - low))
        elif resampling.method == "bca":
            interval = Interval(value, min(value, float(bca_lows[column])), max(value, float(bca_highs[column])))
        else:
            interval = Interval(value, min(value, low), max(value, high))
        found.setdefault(name, {})[score] = interval
    return found


def image_sums(labels: Labels, probabilities: Probabilities, n_bins: int) -> NDArray[np.float64]:
    """Return what each image adds to a model's sums, float64 (n_images, n_bins + 1).

    Right minus confidence, in the column of its confidence's bin; then its log loss.
    """
    check_labels(labels, len(probabilities), probabilities.shape[1])
    rows = np.arange(len(labels))
    confidence = probabilities.max(axis=1).astype(np.float64)
    bins = np.clip(np.ceil(confidence * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    found = np.zeros((len(labels), n_bins + 1))
    found[rows, bins] = (probabilities.argmax(axis=1) == labels) - confidence
    found[:, -1] = -np.log(np.clip(probabilities[rows, labels].astype(np.float64), SMALLEST_PROBABILITY, 1))
    return found


def draw_weights(strata: Labels, resampling: Resampling) -> Iterator[NDArray[np.float32]]:
    """Yield how often each example is in each resample, float32 (n_in_block, n_examples); rows in all: resamples."""
    n, strata = len(strata), joined(strata)
    order = np.argsort(strata, kind="stable")
    sizes = np.unique(strata, return_counts=True)[1].tolist()
    generator = np.random.default_rng(resampling.seed)
    # Short integers are drawn four times as fast.
    kind = np.uint16 if n <= np.iinfo(np.uint16).max else np.uint32
    block_size = max(1, CELLS_PER_BLOCK // n)
    for first in range(0, resampling.resamples, block_size):
        rows = min(block_size, resampling.resamples - first)
        starts = np.cumsum([0, *sizes[:-1]])
        positions = np.concatenate(
            [
                generator.integers(0, size, (rows, size), dtype=kind).astype(np.int64) + start
                for size, start in zip(sizes, starts, strict=True)
            ],
            axis=1,
        )
        flat = order[positions] + n * np.arange(rows)[:, None]
        yield np.bincount(flat.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float32)
