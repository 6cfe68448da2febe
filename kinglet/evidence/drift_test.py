"""Whether what a server sees has moved from what its model was made with, and whether by enough to matter.

Each column is tested, the p-values are corrected for their number, and a column counts as moved only if the move is
established and large. So the chance of any false alarm in a check is at most the rate that is asked for, and millions
of images do not turn a move of no consequence into an alarm. The tests assume that images are independent, or that
`images_per_scene` of them at a time show the same. The objects of an image are not: together they weigh as much as one
image (`kinglet.runtime.watched_answers`), so that what is tested varies no more than one object of each, drawn at
random, would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, kstwo

from kinglet.data.drift import stability_index
from kinglet.evidence.maximum_mean_discrepancy import discrepancy_test
from kinglet.evidence.mcnemar import holm
from kinglet.runtime.sketches import Reference, Sketch

MOVED, MOVED_LITTLE, AS_BEFORE, TOO_FEW = "moved", "moved little", "not moved", "not enough images"
CLASSES, ANSWERS = "classes", "answers"
KOLMOGOROV_SMIRNOV, CHI_SQUARED, DISCREPANCY = (
    "Kolmogorov-Smirnov",
    "chi-squared",
    "maximum mean discrepancy",
)
# Classes that are rarer are taken together: the chi-squared distribution needs so many expected of each.
FEWEST_EXPECTED = 5
# Images of a column: the tests hold for any number, but fewer could show no move that matters.
FEWEST = 100
# Points of each side at most: the kernel's matrix grows with their square.
MAX_POINTS = 500
# Times as many permutations as the smallest p-value that is needed asks for.
PERMUTATIONS_PER_LEVEL = 3


@dataclass(frozen=True)
class Limits:
    """When drift is said to be there.

    false_alarm_rate: chance that a check without drift raises any alarm, at most. min_images: fewer say nothing.
    min_stability_index: a smaller move is no alarm, however well established. images_per_scene: how many images in a
    row show the same.
    """

    false_alarm_rate: float = 0.01
    min_images: int = 500
    min_stability_index: float = 0.1
    images_per_scene: int = 1


@dataclass(frozen=True)
class Finding:
    """What one test found.

    name: the column, CLASSES or ANSWERS. statistic: of the test. p_value: corrected for the number of tests.
    stability_index: how far it moved; None for the sample of answers. verdict: MOVED, MOVED_LITTLE, AS_BEFORE or
    TOO_FEW. images: that the test rests on.
    """

    name: str
    test: str
    images: int
    statistic: float
    p_value: float
    stability_index: float | None
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON-ready values; numbers rounded to what they can tell."""
        return {
            "name": self.name,
            "test": self.test,
            "images": self.images,
            "statistic": round(self.statistic, 6),
            "p_value": float(f"{self.p_value:.3g}"),
            "stability_index": None if self.stability_index is None else round(self.stability_index, 4),
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Tested:
    """One test before its p-value is corrected; p_value None: too few images to say anything."""

    name: str
    test: str
    images: int
    statistic: float
    p_value: float | None
    stability_index: float | None


def drift_findings(reference: Reference, sketch: Sketch, limits: Limits, seed: int = 0) -> list[Finding]:
    """Return what each test found: columns, classes, and the answers where a sample of them was kept.

    Of less than `limits.min_images` independent images nothing is tested, nor is a column that few of them have, or
    few of the reference.
    """
    tested = [column_test(name, reference, sketch, limits) for name in reference.columns]
    tested.append(class_test(reference, sketch, limits))
    if len(sketch.sample) and len(reference.sample):
        tested.append(answer_test(reference, sketch, limits, seed))
    p_values = [1.0 if item.p_value is None else item.p_value for item in tested]
    corrected = holm(np.array([*p_values, *[1.0] * (number_of_tests(reference) - len(p_values))]))
    return [judged(item, float(p), limits) for item, p in zip(tested, corrected, strict=False)]


def number_of_tests(reference: Reference) -> int:
    """Return for how many tests p-values are corrected: columns, classes, and the sample of answers, kept or not."""
    return len(reference.columns) + 1 + reference.watched.has_probabilities


def judged(tested: Tested, p_value: float, limits: Limits) -> Finding:
    """Return a test with its verdict, from its corrected p-value."""
    if tested.p_value is None:
        verdict = TOO_FEW
    elif p_value > limits.false_alarm_rate:
        verdict = AS_BEFORE
    # Some hundred answers establish no move that is too small to matter.
    elif tested.stability_index is None or tested.stability_index >= limits.min_stability_index:
        verdict = MOVED
    else:
        verdict = MOVED_LITTLE
    return Finding(tested.name, tested.test, tested.images, tested.statistic, p_value, tested.stability_index, verdict)


def column_test(name: str, reference: Reference, sketch: Sketch, limits: Limits) -> Tested:
    """Return the test of one column by its binned distribution function.

    Between two edges nothing is seen, so the largest distance is that of the values or less, and the p-value that of
    the values or more.
    """
    before, now = reference.columns[name].counts, sketch.columns[name]
    distance, p_value = largest_distance(before, now), None
    n_before, n_now = (images_in(counts, reference) for counts in (before, now))
    if is_enough(n_before, n_now, sketch, limits):
        independent = n_now / limits.images_per_scene
        p_value = float(kstwo.sf(distance, max(1, math.floor(n_before * independent / (n_before + independent)))))
    index = stability_index(shares(before), shares(now))
    return Tested(name, KOLMOGOROV_SMIRNOV, round(n_now), distance, p_value, index)


def class_test(reference: Reference, sketch: Sketch, limits: Limits) -> Tested:
    """Return the test of how often each class is answered."""
    before, now = reference.class_counts, sketch.class_counts
    n_before, n_now = (images_in(counts, reference) for counts in (before, now))
    statistic, p_value = 0.0, None
    if is_enough(n_before, n_now, sketch, limits):
        weight = reference.watched.weight
        statistic, p_value = homogeneity(before / weight, now / (weight * limits.images_per_scene))
    index = stability_index(shares(before), shares(now))
    return Tested(CLASSES, CHI_SQUARED, round(n_now), statistic, p_value, index)


def answer_test(reference: Reference, sketch: Sketch, limits: Limits, seed: int) -> Tested:
    """Return the test of the sampled answers, all their probabilities together.

    Source: Rabanser, Guennemann and Lipton 2019, "Failing loudly": shifts of images show in a classifier's own
    probabilities, tested by a kernel.
    """
    generator = np.random.default_rng(seed)
    n_now = min(len(sketch.sample) // limits.images_per_scene, MAX_POINTS)
    before, now = drawn(reference.sample, MAX_POINTS, generator), drawn(sketch.sample, n_now, generator)
    n_before = images_in(reference.class_counts, reference)
    if not is_enough(n_before, sketch.n_images, sketch, limits) or n_now < 2:
        return Tested(ANSWERS, DISCREPANCY, n_now, 0.0, None, None)
    permutations = math.ceil(PERMUTATIONS_PER_LEVEL * number_of_tests(reference) / limits.false_alarm_rate)
    found = discrepancy_test(before, now, permutations=permutations, seed=seed)
    return Tested(ANSWERS, DISCREPANCY, n_now, found.statistic, found.p_value, None)


def images_in(counts: NDArray[np.int64], reference: Reference) -> float:
    """Return how many images counts are of."""
    return float(counts.sum()) / reference.watched.weight


def is_enough(n_before: float, n_now: float, sketch: Sketch, limits: Limits) -> bool:
    """Return whether there are the images that a verdict needs: in all, and of the reference and now in a column."""
    independent = np.array([sketch.n_images, n_now]) / limits.images_per_scene
    return bool(n_before >= FEWEST and (independent >= [limits.min_images, min(limits.min_images, FEWEST)]).all())


def largest_distance(before: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """Return the largest distance of two distribution functions over the same bins, [0, 1]; 0 where one is empty."""
    if not before.sum() or not now.sum():
        return 0.0
    return float(np.abs(np.cumsum(before) / before.sum() - np.cumsum(now) / now.sum()).max())


def homogeneity(before: NDArray[Any], now: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Return the chi-squared statistic and p-value of counts of the same classes, rare ones taken together."""
    table = np.stack([before.astype(np.float64), now.astype(np.float64)])
    expected = table.sum(axis=0) * (table.sum(axis=1).min() / table.sum())
    rare = expected < FEWEST_EXPECTED
    columns = [*table[:, ~rare].T, table[:, rare].sum(axis=1)]
    kept = np.array([column for column in columns if column.sum() > 0]).T
    if kept.shape[1] < 2:
        return 0.0, 1.0
    result = chi2_contingency(kept, correction=False)
    return float(result.statistic), float(result.pvalue)


def shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return counts as shares of their sum; zeros where there are none."""
    return counts / max(int(counts.sum()), 1)


def drawn(sample: NDArray[np.float32], most: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Return rows drawn without replacement, all of them where there are not more than `most`."""
    return sample if len(sample) <= most else sample[generator.choice(len(sample), most, replace=False)]
