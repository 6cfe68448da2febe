import io
from contextlib import redirect_stdout

import numpy as np
import pytest

from kinglet.evidence.detection_matches import IOUS, LOOSEST_IOU, SIZES, WHOLE, Objects, coco_evaluation, match_objects
from kinglet.evidence.detection_scores import CLASS_SCORES, RECALLS, detection_scores, map_50, recalls_reached
from tests.unit.evidence.found_objects import made_detections, made_objects


def scores_of(matches, weights=None, shown_from=0.3):
    """{name: value, or list by class}, of one weighting."""
    weights = np.ones(matches.n_images) if weights is None else np.asarray(weights, float)
    found = detection_scores(matches, weights[None], shown_from)
    row, n = found.table[0], len(found.names)
    by_class = row[n:].reshape(len(CLASS_SCORES), -1)
    return dict(zip(found.names, row[:n], strict=True)), dict(zip(CLASS_SCORES, by_class, strict=True))


def of_library(truths, found, n_images):
    """pycocotools' own average precisions: (ious, recalls, classes, sizes), -1 where there is none; and recalls."""
    evaluation = coco_evaluation(truths, found, n_images, IOUS, SIZES)
    with redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    return evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]


def mean_over_known(values):
    return values[values > -1].mean()


def boxes(*rows):
    """Objects from rows (image, label, x1, y1, x2, y2[, score])."""
    table = np.array(rows, float).reshape(len(rows), -1)
    scores = table[:, 6] if table.shape[1] > 6 else None
    return Objects(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2:6], scores)


@pytest.mark.parametrize("step", [None, 0.1])
@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_the_library(seed, step):
    truths = made_objects(seed)
    found = made_detections(truths, seed, step=step)
    overall, by_class = scores_of(match_objects(truths, found, 20, 3))
    precision, recall = of_library(truths, found, 20)
    expected = {
        "map": precision[..., 0],
        "map_50": precision[0, ..., 0],
        "map_75": precision[5, ..., 0],
        "mar_100": recall[..., 0],
        **{f"map_{size}": precision[..., place] for place, size in enumerate(SIZES) if place},
    }
    for name, values in expected.items():
        np.testing.assert_allclose(overall[name], mean_over_known(values), rtol=0, atol=1e-12, err_msg=name)
    labels = np.unique(np.concatenate([truths.labels, found.labels])).tolist()
    for place, label in enumerate(labels):
        if (truths.labels == label).any():
            assert by_class["map"][label] == pytest.approx(precision[:, :, place, 0].mean(), abs=1e-12)
            assert by_class["map_50"][label] == pytest.approx(precision[0, :, place, 0].mean(), abs=1e-12)
        else:
            assert np.isnan(by_class["map"][label])


def test_an_image_that_is_drawn_twice_counts_as_two():
    truths = made_objects(7)
    found = made_detections(truths, 7)
    weights = np.random.default_rng(0).multinomial(20, np.full(20, 1 / 20))
    assert weights.max() > 1
    assert weights.min() == 0
    written_out = [written(part, weights) for part in (truths, found)]
    overall, by_class = scores_of(match_objects(truths, found, 20, 3), weights)
    expected, expected_by_class = scores_of(match_objects(*written_out, 20, 3))
    assert overall == pytest.approx(expected, abs=1e-12, nan_ok=True)
    for name in CLASS_SCORES:
        np.testing.assert_allclose(by_class[name], expected_by_class[name], atol=1e-12)


def written(part, weights):
    """The boxes of images that are repeated as often as the weights say, and numbered anew."""
    copies, number = [], 0
    for image, times in enumerate(weights):
        for _ in range(times):
            own = part.take(part.images == image)
            copies.append(Objects(np.full(len(own), number), own.labels, own.xyxy, own.scores))
            number += 1
    joined = [np.concatenate([getattr(item, name) for item in copies]) for name in ("images", "labels", "xyxy")]
    scores = None if part.scores is None else np.concatenate([item.scores for item in copies])
    return Objects(*joined, scores)


def test_average_precision_of_an_example_from_paper():
    # Right, false, right of three objects: precision 1 up to recall 1/3, 2/3 up to 2/3, 0 above.
    truths = boxes((0, 0, 0, 0, 10, 10), (0, 0, 50, 50, 60, 60), (1, 0, 0, 0, 10, 10))
    found = boxes((0, 0, 0, 0, 10, 10, 0.9), (1, 0, 70, 70, 80, 80, 0.8), (0, 0, 50, 50, 60, 60, 0.2))
    overall, _ = scores_of(match_objects(truths, found, 2, 1))
    assert overall["map_50"] == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)
    assert overall["map"] == pytest.approx(overall["map_50"])
    assert overall["mar_100"] == pytest.approx(2 / 3)
    assert (overall["precision"], overall["recall"], overall["f1"]) == pytest.approx((1 / 2, 1 / 3, 2 / 5))
    assert np.isnan(overall["map_large"])


def test_a_second_box_on_an_object_is_false_and_another_class_finds_nothing():
    truths = boxes((0, 0, 0, 0, 10, 10), (0, 1, 40, 40, 50, 50))
    found = boxes((0, 0, 0, 0, 10, 10, 0.9), (0, 0, 0, 0, 10, 9, 0.8), (0, 0, 40, 40, 50, 50, 0.95))
    matches = match_objects(truths, found, 1, 2)
    assert matches.right[0, 0].tolist() == [True, False, False]
    assert matches.found_by.tolist() == [0, -1]
    _, by_class = scores_of(matches)
    assert by_class["map_50"] == pytest.approx([0.5, 0])
    assert by_class["precision"] == pytest.approx([1 / 3, 0])


def test_overlap_decides_up_to_which_iou_a_box_is_right():
    found = boxes((0, 0, 0, 0, 100, 72, 0.5))
    matches = match_objects(boxes((0, 0, 0, 0, 100, 100)), found, 1, 1)
    assert matches.right[0, :, 0].tolist() == [iou <= 0.72 for iou in IOUS]


@pytest.mark.parametrize(
    ("side", "belongs"), [(31, ["small"]), (32, ["small", "medium"]), (96, ["medium", "large"]), (97, ["large"])]
)
def test_the_size_of_an_object_is_its_area(side, belongs):
    matches = match_objects(boxes((0, 0, 0, 0, side, side)), boxes((0, 0, 0, 0, side, side, 0.5)), 1, 1)
    assert [size for size, own in zip(matches.sizes, matches.belongs[:, 0], strict=True) if own] == ["all", *belongs]


def test_nothing_found_is_zero_and_no_objects_are_unknown():
    nothing = Objects(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))
    overall, by_class = scores_of(match_objects(boxes((0, 0, 0, 0, 9, 9)), nothing, 3, 2))
    assert overall["map_50"] == overall["recall"] == overall["f1"] == 0
    assert by_class["map_50"][0] == 0
    assert np.isnan(by_class["map_50"][1])
    overall, _ = scores_of(match_objects(nothing, boxes((0, 0, 0, 0, 9, 9, 0.9)), 3, 2))
    assert np.isnan([overall["map"], overall["map_50"], overall["precision"], overall["recall"]]).all()


def test_only_the_surest_hundred_of_a_class_count_in_an_image():
    truths = boxes((0, 0, 0, 0, 10, 10))
    far = [(0, 0, 20 + index, 0, 21 + index, 10, 0.9) for index in range(100)]
    matches = match_objects(truths, boxes(*far, (0, 0, 0, 0, 10, 10, 0.8)), 1, 1)
    assert not matches.counted[0, 0, 100]
    assert scores_of(matches)[0]["map_50"] == 0


def test_one_iou_and_all_sizes_are_enough_for_map_50():
    truths = made_objects(3)
    found = made_detections(truths, 3)
    weights = np.random.default_rng(1).multinomial(20, np.full(20, 1 / 20), 5).astype(float)
    quick = map_50(match_objects(truths, found, 20, 3, ious=LOOSEST_IOU, sizes=WHOLE), weights)
    full = detection_scores(match_objects(truths, found, 20, 3), weights, 0.3)
    np.testing.assert_array_equal(quick, full.table[:, full.names.index("map_50")])


def test_reached_recalls_are_counted_as_a_search_would():
    recalls = np.array([hits / objects for objects in range(1, 250) for hits in range(objects + 1)])
    np.testing.assert_array_equal(recalls_reached(recalls), np.searchsorted(RECALLS, recalls, "right"))


@pytest.mark.parametrize(
    ("truths", "found", "said"),
    [
        (boxes((0, 0, 0, 0, 9, 9)), boxes((2, 0, 0, 0, 9, 9, 0.5)), "image of a box"),
        (boxes((0, 5, 0, 0, 9, 9)), boxes((0, 0, 0, 0, 9, 9, 0.5)), "label of a box"),
        (boxes((0, 0, 9, 0, 9, 9)), boxes((0, 0, 0, 0, 9, 9, 0.5)), "positive area"),
        (boxes((0, 0, 0, 0, 9, 9)), boxes((0, 0, 0, 0, np.nan, 9, 0.5)), "positive area"),
        (boxes((0, 0, 0, 0, 9, 9)), boxes((0, 0, 0, 0, 9, 9, np.nan)), "finite score"),
        (boxes((0, 0, 0, 0, 9, 9)), boxes((0, 0, 0, 0, 9, 9)), "finite score"),
    ],
)
def test_wrong_boxes_are_refused(truths, found, said):
    with pytest.raises(ValueError, match=said):
        match_objects(truths, found, 2, 2)


def test_the_library_prints_nothing(capsys):
    match_objects(boxes((0, 0, 0, 0, 9, 9)), boxes((0, 0, 0, 0, 9, 9, 0.5)), 1, 1)
    assert capsys.readouterr().out == ""
