import numpy as np
import pytest

from kinglet.runtime.boxes import box_iou
from kinglet.runtime.detection import MAX_CANDIDATES, Detections, decode_detections
from kinglet.runtime.preprocessing import placement

AS_IT_IS = placement(100, 100, 100, "stretch")


def plain_detections(logits, boxes, placed, score_threshold, iou_threshold, most):
    """The decoder as one would write it on a blackboard: (score, label, box), one pair of boxes at a time."""
    candidates = []
    for anchor in range(len(logits)):
        x1, y1, x2, y2 = placed.to_image(boxes[anchor : anchor + 1])[0].tolist()
        for label in range(logits.shape[1]):
            score = 1 / (1 + np.exp(-np.float64(logits[anchor, label])))
            if np.float32(score) >= np.float32(score_threshold) and x2 > x1 and y2 > y1:
                candidates.append((float(np.float32(score)), label, (x1, y1, x2, y2)))
    candidates.sort(key=lambda item: -item[0])
    kept = []
    for score, label, box in candidates[:MAX_CANDIDATES]:
        if all(label != other or plain_iou(box, kept_box) <= iou_threshold for _, other, kept_box in kept):
            kept.append((score, label, box))
    return kept[:most]


def plain_iou(one, other):
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - width * height
    return width * height / union


def crowd(seed, n, classes, size=100, step=None):
    """Logits and boxes of n anchors around a few objects; a step rounds both, so that there are ties."""
    generator = np.random.default_rng(seed)
    centres = generator.uniform(0, size, (1 + n // 12, 2))[generator.integers(0, 1 + n // 12, n)]
    centres += generator.normal(0, size / 40, (n, 2))
    halves = generator.uniform(size / 20, size / 6, (n, 2))
    logits, boxes = generator.normal(-1, 2, (n, classes)), np.concatenate([centres - halves, centres + halves], axis=1)
    if step:
        logits, boxes = np.round(logits / step) * step, np.round(boxes / 5) * 5
    return logits.astype(np.float32), boxes.astype(np.float32)


@pytest.mark.parametrize("step", [None, 0.5])
@pytest.mark.parametrize("shape", [(100, 100, "stretch"), (60, 160, "pad"), (230, 70, "stretch")])
@pytest.mark.parametrize("score_threshold", [0.0, 0.01, 0.3])
def test_detections_are_those_of_the_plain_algorithm_box_by_box(shape, score_threshold, step):
    placed = placement(shape[0], shape[1], 100, shape[2])
    for seed in range(3):
        logits, boxes = crowd(seed, 40 + 20 * seed, 1 + seed, step=step)
        (found,) = decode_detections(
            logits[None], boxes[None], [placed], score_threshold=score_threshold, iou_threshold=0.5, max_detections=30
        )
        expected = plain_detections(logits, boxes, placed, score_threshold, 0.5, 30)
        assert expected
        assert [(score, label, tuple(box)) for score, label, box in as_rows(found)] == expected


def as_rows(found: Detections):
    return zip(found.scores.tolist(), found.labels.tolist(), found.xyxy.tolist(), strict=True)


def test_a_batch_is_decoded_image_by_image():
    parts = [crowd(seed, 50, 2) for seed in (1, 2)]
    placed = [placement(50, 80, 100, "pad"), AS_IT_IS]
    together = decode_detections(np.stack([part[0] for part in parts]), np.stack([part[1] for part in parts]), placed)
    for (logits, boxes), place, found in zip(parts, placed, together, strict=True):
        (alone,) = decode_detections(logits[None], boxes[None], [place])
        assert list(as_rows(found)) == list(as_rows(alone))


def test_nothing_sure_enough_and_no_anchors_give_empty_detections_of_the_right_types():
    for anchors in (0, 7):
        logits, boxes = np.full((1, anchors, 3), -9, np.float32), np.ones((1, anchors, 4), np.float32)
        (found,) = decode_detections(logits, boxes, [AS_IT_IS])
        assert (found.xyxy.shape, found.labels.shape, found.scores.shape) == ((0, 4), (0,), (0,))
        assert (found.xyxy.dtype, found.labels.dtype, found.scores.dtype) == (np.float32, np.int64, np.float32)
    assert decode_detections(np.zeros((0, 7, 3), np.float32), np.zeros((0, 7, 4), np.float32), []) == []


def test_equal_scores_come_in_the_order_of_the_anchors():
    boxes = np.array([[[50, 0, 60, 10], [0, 0, 10, 10], [1, 0, 11, 10]]], np.float32)
    (found,) = decode_detections(np.full((1, 3, 1), 2, np.float32), boxes, [AS_IT_IS], iou_threshold=0.5)
    np.testing.assert_array_equal(found.xyxy, boxes[0, :2])


def test_a_box_that_overlaps_by_just_the_threshold_stays():
    boxes = np.array([[[0, 0, 10, 10], [0, 0, 10, 5]]], np.float32)
    logits = np.array([[[3], [2]]], np.float32)
    assert len(decode_detections(logits, boxes, [AS_IT_IS], iou_threshold=0.5)[0]) == 2
    assert len(decode_detections(logits, boxes, [AS_IT_IS], iou_threshold=0.499)[0]) == 1


def test_boxes_of_different_classes_do_not_suppress_each_other():
    boxes = np.array([[[0, 0, 10, 10]]], np.float32)
    (found,) = decode_detections(np.array([[[2, 3]]], np.float32), boxes, [AS_IT_IS])
    assert found.labels.tolist() == [1, 0]


def test_boxes_outside_the_image_are_left_out():
    placed = placement(100, 50, 100, "pad")
    boxes = np.array([[[0, 0, 100, 20], [0, 30, 10, 30], [20, 30, 10, 40], [-5, 40, 5, 60]]], np.float32)
    (found,) = decode_detections(np.full((1, 4, 1), 2, np.float32), boxes, [placed])
    np.testing.assert_array_equal(found.xyxy, [[0, 15, 5, 35]])


def test_scores_at_the_ends_of_the_scale():
    logits, boxes = np.array([[[-100], [100]]], np.float32), np.array([[[0, 0, 9, 9], [20, 20, 30, 30]]], np.float32)
    assert decode_detections(logits, boxes, [AS_IT_IS], score_threshold=0)[0].scores.tolist() == pytest.approx([1, 0])
    assert decode_detections(logits, boxes, [AS_IT_IS], score_threshold=1)[0].scores.tolist() == [1]


def test_detections_from_a_score_on_are_the_first_ones():
    (found,) = decode_detections(*(part[None] for part in crowd(3, 60, 2)), [AS_IT_IS], score_threshold=0.05)
    assert 0 < len(found.from_score(0.5)) < len(found)
    assert (found.from_score(0.5).scores >= 0.5).all()
    assert len(found.from_score(0)) == len(found)


def test_overlap_of_boxes():
    one = np.array([[0, 0, 10, 10]], np.float32)
    other = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 4]], np.float32)
    np.testing.assert_allclose(box_iou(one, other), [[1, 1 / 3, 0, 0.04]])


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("of_boxes", [False, True])
def test_numbers_that_are_not_finite_are_refused(number, of_boxes):
    logits, boxes = (part[None].copy() for part in crowd(0, 5, 1))
    (boxes if of_boxes else logits)[0, 3, 0] = number
    with pytest.raises(ValueError, match="NaN or infinite"):
        decode_detections(logits, boxes, [AS_IT_IS])


@pytest.mark.parametrize("change", [{"score_threshold": -0.1}, {"iou_threshold": 1.1}, {"max_detections": 0}])
def test_wrong_thresholds_are_refused(change):
    with pytest.raises(ValueError, match="thresholds"):
        decode_detections(*(part[None] for part in crowd(0, 5, 1)), [AS_IT_IS], **change)


@pytest.mark.parametrize("shapes", [((2, 5, 1), (2, 5, 4)), ((1, 5, 1), (1, 4, 4)), ((5, 1), (5, 4))])
def test_outputs_of_another_shape_are_refused(shapes):
    with pytest.raises(ValueError, match="not those of 1 images"):
        decode_detections(np.zeros(shapes[0], np.float32), np.zeros(shapes[1], np.float32), [AS_IT_IS])
