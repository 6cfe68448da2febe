"""Confident learning beside a reading of the paper in plain loops, and on labels that were flipped on purpose."""

from __future__ import annotations

import numpy as np
import pytest

from kinglet.evidence.confident_learning import class_thresholds, confident_classes, estimated_joint, find_label_errors


def answers(n: int, n_classes: int, strength: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return true labels and the probabilities of a model that is right most of the time."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    logits = generator.normal(0, 1, (n, n_classes))
    logits[np.arange(n), labels] += strength
    exponentials = np.exp(logits)
    return labels, exponentials / exponentials.sum(axis=1, keepdims=True)


def confident_joint_by_loops(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    n_classes = probabilities.shape[1]
    thresholds = [
        np.mean([p[c] for p, y in zip(probabilities, labels, strict=True) if y == c]) for c in range(n_classes)
    ]
    joint = np.zeros((n_classes, n_classes))
    for p, y in zip(probabilities, labels, strict=True):
        above = [c for c in range(n_classes) if p[c] >= thresholds[c]]
        if above:
            joint[y, max(above, key=lambda c: p[c])] += 1
    size = np.bincount(labels, minlength=n_classes)
    return joint / joint.sum(axis=1, keepdims=True) * size[:, None]


def test_a_worked_example():
    labels = np.array([0, 0, 0, 1, 1, 1])
    of_class_0 = np.array([0.9, 0.8, 0.1, 0.2, 0.3, 0.95])
    probabilities = np.stack([of_class_0, 1 - of_class_0], axis=1)
    # Thresholds 0.6 and (0.8 + 0.7 + 0.05) / 3.
    np.testing.assert_allclose(class_thresholds(labels, probabilities), [0.6, 1.55 / 3])
    counted = confident_classes(labels, probabilities)
    np.testing.assert_array_equal(counted, [0, 0, 1, 1, 1, 0])
    np.testing.assert_allclose(estimated_joint(labels, counted, 2), [[2, 1], [1, 2]])
    found = find_label_errors(labels, probabilities, most_label_confidence=1)
    # The margin of the last is 0.95 - 0.05, that of the third 0.9 - 0.1.
    np.testing.assert_array_equal(found.rows, [5, 2])
    np.testing.assert_array_equal(found.likely, [0, 1])
    assert found.estimated == pytest.approx(2)


@pytest.mark.parametrize("seed", range(3))
def test_the_joint_is_the_papers(seed):
    labels, probabilities = answers(300, 4, 2.0, seed)
    labels = np.random.default_rng(seed).permutation(labels) if seed == 2 else labels
    joint = estimated_joint(labels, confident_classes(labels, probabilities), 4)
    np.testing.assert_allclose(joint, confident_joint_by_loops(labels, probabilities))


def test_flipped_labels_are_found_and_named():
    true, probabilities = answers(4000, 10, 5.5)
    generator = np.random.default_rng(1)
    chosen = generator.choice(4000, 200, replace=False)
    labels = true.copy()
    labels[chosen] = (true[chosen] + generator.integers(1, 10, 200)) % 10
    found = find_label_errors(labels, probabilities)
    is_flipped = np.isin(found.rows, chosen)
    assert is_flipped.sum() / 200 > 0.7
    assert is_flipped.mean() > 0.8
    assert (found.likely == true[found.rows])[is_flipped].mean() > 0.95
    assert 100 < found.estimated < 400


def test_an_image_that_is_hard_to_tell_is_no_label_error():
    labels = np.array([0] * 12 + [1] * 11)
    of_class_0 = np.array([0.9] * 10 + [0.3, 0.01] + [0.1] * 11)
    probabilities = np.stack([of_class_0, 1 - of_class_0], axis=1)
    probabilities[10] = [0.05, 0.95]
    probabilities[11] = [0.3, 0.7]
    assert 11 not in find_label_errors(labels, probabilities).rows
    assert 10 in find_label_errors(labels, probabilities).rows
    assert find_label_errors(labels, probabilities).estimated > 0


def test_a_model_that_agrees_with_every_label_finds_nothing():
    labels = np.arange(30) % 3
    assert len(find_label_errors(labels, np.eye(3)[labels]).rows) == 0


def test_a_class_without_images_is_never_likely():
    labels = np.array([0, 1] * 20)
    probabilities = np.tile([0.3, 0.3, 0.4], (40, 1))
    assert 2 not in find_label_errors(labels, probabilities).likely


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="2 labels for 3 answers"):
        find_label_errors(np.array([0, 1]), np.ones((3, 2)) / 2)
