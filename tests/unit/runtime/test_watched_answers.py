"""What is counted of answers: every image once, however many objects, tiles or clips it gives."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kinglet.runtime import bundles
from kinglet.runtime.detection import Detections
from kinglet.runtime.predictors import PREDICTORS
from kinglet.runtime.preprocessing import placement
from kinglet.runtime.segmentation import decode_masks
from kinglet.runtime.sketches import (
    INPUTS,
    Reference,
    columns_of,
    counts_of,
    reference_from,
    reference_of,
    sketch_of_values,
)
from kinglet.runtime.watched_answers import (
    SHARED_WEIGHT,
    WATCHED,
    Values,
    class_answers,
    mask_answers,
    mask_facts,
    object_answers,
    one_each,
)
from kinglet.serving.seen import ANSWERS

RANDOM = np.random.default_rng(0)


def found(labels: list[int], side: float = 10.0) -> Detections:
    """Return objects of one size, the surest first."""
    boxes = np.array([[5, 5, 5 + side, 5 + side]] * len(labels), np.float32).reshape(-1, 4)
    return Detections(boxes, np.array(labels, np.int64), np.linspace(0.9, 0.4, len(labels)).astype(np.float32))


def test_every_problem_that_is_served_is_watched() -> None:
    assert set(WATCHED) == set(ANSWERS) == set(PREDICTORS)


def test_the_objects_of_an_image_share_its_weight() -> None:
    objects = [found([0]), found([]), found([1, 1, 0])]
    answers = object_answers(objects, [(100, 50), (100, 50), None], 2)
    edges = np.array([0.5])
    for name, expected in (("objects", [1, 0, 2]), ("confidence", [1 / 3, 0, 5 / 3])):
        counts = counts_of(answers.columns[name], edges, SHARED_WEIGHT)
        np.testing.assert_allclose(counts / SHARED_WEIGHT, expected, atol=1e-5)
    # Nobody knows how large the last image was; ten pixels are a fiftieth of the area of the first.
    assert answers.columns["object size"].values.tolist() == pytest.approx([(100 / 5000) ** 0.5])
    np.testing.assert_allclose(answers.composition, [[1, 0], [0, 0], [1 / 3, 2 / 3]])
    assert answers.sample.shape == (0, 2)


def test_images_without_any_object_are_counted_too() -> None:
    answers = object_answers([found([])] * 3, [(10, 10)] * 3, 2)
    assert counts_of(answers.columns["objects"], np.array([0.0]), 1).tolist() == [0, 3, 0]
    assert counts_of(answers.columns["confidence"], np.empty(0), 1).tolist() == [0]
    assert answers.composition.tolist() == [[0, 0]] * 3


def test_shares_are_those_of_the_mask_inside_the_borders() -> None:
    # 64 x 40 pixels of 64 x 64, and logits of 16 x 16 cells: rows 3 to 12 show the image.
    placed = placement(128, 80, 64, "pad")
    logits = RANDOM.normal(0, 1, (1, 3, 16, 16)).astype(np.float32)
    logits[:, 2, :3] = logits[:, 2, 13:] = 50  # what the borders show is nobody's
    confidences, shares = mask_facts(logits, [placed])
    cells = logits[0, :, 3:13].reshape(3, -1)
    exponentials = np.exp(cells)
    assert confidences[0] == pytest.approx((exponentials.max(axis=0) / exponentials.sum(axis=0)).mean(), abs=1e-6)
    np.testing.assert_allclose(shares[0], np.bincount(cells.argmax(axis=0), minlength=3) / 160)
    (mask,) = decode_masks(logits, [placed], [(128, 80)])
    np.testing.assert_allclose(shares[0], np.bincount(mask.ravel(), minlength=3) / mask.size, atol=0.1)


def test_the_tiles_of_an_image_share_its_weight() -> None:
    shares = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    answers = mask_answers(np.array([0.6, 0.8, 0.9]), shares, np.array([0, 0, 1]), ["a", "b"])
    np.testing.assert_allclose(answers.composition, [[0.75, 0.25], [0, 1]])
    assert counts_of(answers.columns["confidence"], np.array([0.7]), 2).tolist() == [1, 0, 3]


def test_the_clips_of_a_video_share_its_weight_and_one_is_sampled() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], np.float32)
    answers = class_answers(probabilities, np.array([0, 0, 1]))
    np.testing.assert_allclose(answers.composition, [[0.5, 0.5], [0, 1]])
    np.testing.assert_array_equal(answers.sample, probabilities[[0, 2]])


def test_a_reference_of_every_problem_comes_back_from_its_file() -> None:
    classes, inputs = ["a", "b"], {name: one_each(RANDOM.random(30)) for name in INPUTS}
    shares = RANDOM.dirichlet([1, 1], 30)
    each = {
        bundles.CLASSIFICATION: class_answers(shares.astype(np.float32)),
        bundles.VIDEO: class_answers(shares.astype(np.float32), np.arange(30) // 3),
        bundles.DETECTION: object_answers([found([0, 1][: n % 3]) for n in range(30)], [(40, 40)] * 30, 2),
        bundles.SEGMENTATION: mask_answers(RANDOM.random(30), shares, np.arange(30), classes),
    }
    assert set(each) == set(WATCHED)
    for problem, answers in each.items():
        reference = reference_of(problem, inputs, answers, classes)
        again = reference_from(reference_bytes(reference), "reference.json")
        assert again.to_dict() == reference.to_dict()
        assert tuple(again.columns) == columns_of(problem, classes)
        sketch = sketch_of_values(reference, inputs, answers)
        for name, histogram in reference.columns.items():
            np.testing.assert_array_equal(sketch.columns[name], histogram.counts)
        assert sketch.n_images == (10 if problem == bundles.VIDEO else 30)


def reference_bytes(reference: Reference) -> bytes:
    return json.dumps(reference.to_dict()).encode()


def test_equal_parts_of_an_image_add_up_to_it() -> None:
    for n in (1, 3, 16, 17, 100):
        counts = counts_of(Values(RANDOM.random(n), np.zeros(n, np.int64)), np.empty(0), SHARED_WEIGHT)
        assert counts[0] == pytest.approx(SHARED_WEIGHT, rel=1e-4)
