"""Drift is said when it is there, and without it no more often than was promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, ks_2samp

from kinglet.evidence.drift_test import (
    AS_BEFORE,
    MOVED,
    MOVED_LITTLE,
    TOO_FEW,
    Limits,
    drift_findings,
    homogeneity,
    largest_distance,
    number_of_tests,
)
from kinglet.evidence.maximum_mean_discrepancy import discrepancy_test
from kinglet.runtime.detection import Detections
from kinglet.runtime.histograms import bin_counts
from kinglet.runtime.sketches import (
    DECIMALS,
    Reference,
    Sketch,
    make_reference,
    reference_of,
    sketch_of_values,
)
from kinglet.runtime.watched_answers import Answers, Values, object_answers, one_each

CLASSES = ("a", "b", "c", "d")
# A rate that few hundred simulations can tell from twice as much.
RATE = 0.05


def columns(n: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Return columns as images have them: some continuous, some of few numbers, one of a single one."""
    return {
        "brightness": generator.beta(2, 3, n),
        "contrast": generator.gamma(2, 0.1, n),
        "sharpness": generator.lognormal(-5, 1, n),
        "entropy": generator.normal(5, 1, n).round(1),
        "width": generator.choice([28.0, 32.0, 64.0], n, p=[0.7, 0.2, 0.1]),
        "height": np.full(n, 28.0),
    }


def probabilities(n: int, generator: np.random.Generator, weights: tuple[float, ...] = (1, 1, 1, 1)) -> np.ndarray:
    return generator.dirichlet(weights, n).astype(np.float32)


def make(n: int, seed: int) -> Reference:
    generator = np.random.default_rng(seed)
    answers = probabilities(n, generator)
    return make_reference(columns(n, generator), answers, answers.argmax(axis=1), np.ones(n, bool), CLASSES)


def seen(reference: Reference, values: dict[str, np.ndarray], answers: np.ndarray, n_sample: int) -> Sketch:
    everything = {**values, "confidence": answers.max(axis=1).astype(np.float64)}
    counts = {
        name: bin_counts(np.round(everything[name], DECIMALS), reference.columns[name].edges)
        for name in reference.columns
    }
    answered = np.bincount(answers.argmax(axis=1), minlength=len(CLASSES))
    return Sketch(len(answers), counts, answered, answers[:n_sample])


def stream(reference: Reference, n: int, seed: int, n_sample: int = 40, repeat: int = 1) -> Sketch:
    """Return the sketch of images like those of the reference; each is seen `repeat` times in a row."""
    generator = np.random.default_rng(seed)
    values = {name: np.repeat(column, repeat) for name, column in columns(n, generator).items()}
    return seen(reference, values, np.repeat(probabilities(n, generator), repeat, axis=0), n_sample)


def alarms(limits: Limits, count: int, n: int, repeat: int = 1) -> int:
    """Return in how many of `count` checks without drift anything counts as moved, each with a reference of its own."""
    found = 0
    for seed in range(count):
        reference = make(600, 2 * seed)
        reference = Reference(
            reference.columns, CLASSES, reference.class_counts, reference.sample[:40], reference.n_right, 600
        )
        findings = drift_findings(reference, stream(reference, n, 2 * seed + 1, repeat=repeat), limits)
        found += any(finding.verdict == MOVED for finding in findings)
    return found


def test_without_drift_no_more_alarms_are_raised_than_promised() -> None:
    # Any move at all counts, so that nothing but the tests holds the rate.
    limits = Limits(RATE, 500, 0.0)
    assert alarms(limits, 200, 500) <= binom.ppf(0.999, 200, RATE)


def test_images_of_one_scene_count_once_and_are_false_alarms_if_they_do_not() -> None:
    assert alarms(Limits(RATE, 100, 0.0, images_per_scene=10), 60, 150, repeat=10) <= binom.ppf(0.999, 60, RATE)
    assert alarms(Limits(RATE, 100, 0.0), 20, 150, repeat=10) > 10


def seen_objects(n: int, generator: np.random.Generator) -> tuple[dict[str, Values], Answers]:
    """Return what a detector finds in n images: those of one are much alike, and a rare class comes in swarms."""
    is_swarm = generator.random(n) < 0.1
    counts = np.where(is_swarm, generator.integers(10, 40, n), generator.integers(0, 5, n))
    light, nearness = generator.uniform(0.3, 0.8, n), generator.uniform(0.05, 0.4, n)
    found = []
    for image, count in enumerate(counts.tolist()):
        corners = generator.uniform(0, 0.5, (count, 2))
        boxes = np.concatenate([corners, corners + nearness[image] + generator.uniform(0, 0.02, (count, 1))], axis=1)
        labels = np.full(count, 2) if is_swarm[image] else generator.integers(0, 2, count)
        scores = np.sort(light[image] + generator.uniform(0, 0.1, count))[::-1]
        found.append(Detections(boxes.astype(np.float32), labels, scores.astype(np.float32)))
    inputs = {name: one_each(values) for name, values in columns(n, generator).items()}
    return inputs, object_answers(found, [(1, 1)] * n, 3)


def object_alarms(count: int, weigh_images: bool) -> int:
    """Return in how many of `count` checks without drift anything counts as moved for a detector.

    weigh_images: whether each image counts once, as it should; else each of its objects counts as an image would.
    """
    alarms = 0
    for seed in range(count):
        generator = np.random.default_rng(seed)
        (inputs, answers), now = seen_objects(600, generator), seen_objects(500, generator)
        if not weigh_images:
            answers, now = alone(answers), (now[0], alone(now[1]))
        reference = reference_of("detection", inputs, answers, ("car", "bus", "bird"))
        findings = drift_findings(reference, sketch_of_values(reference, *now), Limits(RATE, 500, 0.0))
        alarms += any(finding.verdict == MOVED for finding in findings)
    return alarms


def alone(answers: Answers) -> Answers:
    """Return answers as if every object were in an image of its own."""
    return replace(answers, columns={name: one_each(found.values) for name, found in answers.columns.items()})


def test_the_objects_of_an_image_are_no_independent_evidence() -> None:
    assert object_alarms(60, weigh_images=True) <= binom.ppf(0.999, 60, RATE)
    assert object_alarms(10, weigh_images=False) > 5


def test_smaller_and_fewer_objects_are_named() -> None:
    generator = np.random.default_rng(0)
    inputs, answers = seen_objects(2000, generator)
    reference = reference_of("detection", inputs, answers, ("car", "bus", "bird"))
    inputs, answers = seen_objects(1000, generator)
    sizes = answers.columns["object size"]
    smaller = replace(answers, columns={**answers.columns, "object size": Values(sizes.values / 2, sizes.images)})
    found = drift_findings(reference, sketch_of_values(reference, inputs, smaller), Limits())
    assert [finding.name for finding in found if finding.verdict == MOVED] == ["object size"]
    none = object_answers([Detections(np.empty((0, 4)), np.empty(0, np.int64), np.empty(0))] * 1000, [(1, 1)] * 1000, 3)
    by_name = {
        item.name: item for item in drift_findings(reference, sketch_of_values(reference, inputs, none), Limits())
    }
    assert by_name["objects"].verdict == MOVED
    assert by_name["confidence"].verdict == by_name["classes"].verdict == TOO_FEW


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("brightness", lambda values: values * 0.6),
        ("contrast", lambda values: values + 0.1),
        ("width", lambda values: np.where(np.arange(len(values)) % 3, values, 64.0)),
        ("height", lambda values: values + 1),
    ],
)
def test_a_column_that_moved_is_named_and_no_other(name: str, change) -> None:
    reference = make(4000, 1)
    generator = np.random.default_rng(2)
    values = columns(1000, generator)
    values[name] = change(values[name])
    findings = drift_findings(reference, seen(reference, values, probabilities(1000, generator), 100), Limits())
    assert [finding.name for finding in findings if finding.verdict != AS_BEFORE] == [name]
    assert [finding.verdict for finding in findings if finding.name == name] == [MOVED]


def test_other_classes_and_other_answers_are_named() -> None:
    reference = make(4000, 1)
    generator = np.random.default_rng(2)
    answers = probabilities(1000, generator, (3, 1, 1, 1))
    findings = drift_findings(reference, seen(reference, columns(1000, generator), answers, 200), Limits())
    assert {"classes", "answers"} <= {finding.name for finding in findings if finding.verdict == MOVED}


def test_a_move_that_is_established_and_small_is_no_alarm() -> None:
    reference = make(50_000, 1)
    generator = np.random.default_rng(2)
    values = columns(50_000, generator)
    values["brightness"] = values["brightness"] + 0.01
    found = drift_findings(reference, seen(reference, values, probabilities(50_000, generator), 0), Limits())
    by_name = {finding.name: finding for finding in found}
    assert by_name["brightness"].verdict == MOVED_LITTLE
    assert by_name["brightness"].p_value < 1e-4
    assert "answers" not in by_name


def test_few_images_say_nothing_however_different() -> None:
    reference = make(4000, 1)
    generator = np.random.default_rng(2)
    values = {name: column * 0 for name, column in columns(499, generator).items()}
    findings = drift_findings(reference, seen(reference, values, probabilities(499, generator), 40), Limits())
    assert {finding.verdict for finding in findings} == {TOO_FEW}
    assert len(findings) == number_of_tests(reference)


def test_the_distance_over_bins_is_that_of_scipy_for_values_on_the_edges() -> None:
    generator = np.random.default_rng(0)
    edges = np.arange(10.0)
    first, second = generator.integers(0, 10, 300), generator.integers(1, 10, 200)
    found = largest_distance(bin_counts(first, edges), bin_counts(second, edges))
    assert found == pytest.approx(ks_2samp(first, second).statistic)


def test_rare_classes_are_taken_together() -> None:
    assert homogeneity(np.array([500, 500, 1, 0]), np.array([50.0, 50.0, 0.0, 1.0]))[1] > 0.05
    assert homogeneity(np.array([500, 0]), np.array([70.0, 0.0])) == (0.0, 1.0)
    assert homogeneity(np.array([500, 500]), np.array([90.0, 10.0]))[1] < 1e-6


def test_the_discrepancy_is_that_of_the_definition() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(20, 3)), generator.normal(0.5, 1, (30, 3))
    points = np.concatenate([first, second])
    squared = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    kernel = np.exp(-squared / (2 * np.median(squared[np.triu_indices(50, 1)])))
    expected = kernel[:20, :20].mean() + kernel[20:, 20:].mean() - 2 * kernel[:20, 20:].mean()
    found = discrepancy_test(first, second, permutations=99, seed=0)
    assert found.statistic == pytest.approx(expected, abs=1e-5)
    assert found == discrepancy_test(first, second, permutations=99, seed=0)


def test_the_discrepancys_p_values_are_even_without_a_difference_and_small_with_one() -> None:
    generator = np.random.default_rng(1)
    p_values = [
        discrepancy_test(generator.normal(size=(20, 2)), generator.normal(size=(25, 2)), permutations=99, seed=seed)
        for seed in range(200)
    ]
    below = sum(item.p_value <= 0.1 for item in p_values)
    assert binom.ppf(0.001, 200, 0.1) <= below <= binom.ppf(0.999, 200, 0.1)
    moved = discrepancy_test(generator.normal(size=(60, 2)), generator.normal(1, 1, (60, 2)), permutations=999, seed=0)
    assert moved.p_value == 1 / 1000


def test_points_that_are_all_the_same_differ_in_nothing() -> None:
    assert discrepancy_test(np.ones((5, 2)), np.ones((7, 2)), permutations=99, seed=0).p_value == 1
    with pytest.raises(ValueError, match="at least one point"):
        discrepancy_test(np.ones((0, 2)), np.ones((7, 2)), permutations=99, seed=0)
