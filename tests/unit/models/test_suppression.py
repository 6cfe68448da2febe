"""Suppression inside the file, held against the decoder in numpy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from kinglet.models.suppression import INSIDE, with_suppression
from kinglet.runtime.detection import DETECTOR_OUTPUTS, decode_detections, run_detector
from kinglet.runtime.preprocessing import Placement, normalize, placement, square_of
from kinglet.runtime.sessions import load_session, open_session
from tests.unit.models.detector_files import PREPROCESSING, detector_file, int8_file, pictures
from tests.unit.models.test_detector import SIZE


def inside(placed: Placement) -> np.ndarray:
    return placed.to_input(np.array([[0, 0, placed.width, placed.height]], np.float32))[0]


@pytest.mark.parametrize("file", [detector_file, int8_file])
@pytest.mark.parametrize("most", [100, 7])
def test_objects_are_those_of_the_decoder_in_numpy(file, most):
    wide = pictures(6, 80, seed=4)[:, :50]
    placed = placement(80, 50, SIZE, "pad")
    session = open_session(file(), threads=1, outputs=DETECTOR_OUTPUTS)
    model = with_suppression(onnx.load_from_string(file()), 0.3, 0.6, most)
    suppressing = load_session(model.SerializeToString(), threads=1)
    n_found = n_cut = 0
    for image in wide:
        tensor = normalize(square_of(image, PREPROCESSING)[None], PREPROCESSING)
        logits, boxes = run_detector(session, tensor)
        (expected,) = decode_detections(logits, boxes, [placed], max_detections=most)
        xyxy, labels, scores = suppressing.run(None, {"images": tensor, INSIDE: inside(placed)})
        np.testing.assert_allclose(scores, expected.scores, atol=1e-6)
        own, other = (
            ordered(placed.to_image(xyxy), labels, scores),
            ordered(expected.xyxy, expected.labels, expected.scores),
        )
        # Of equal scores, another may be the last that is let through.
        last = scores[-1] + 1e-6
        own, other = own[own[:, 0] > last], other[other[:, 0] > last]
        np.testing.assert_allclose(own, other, atol=1e-3)
        n_found += len(own)
        n_cut += int((expected.xyxy[:, :2] == 0).any(axis=1).sum())
    assert n_found > 30
    assert n_cut > 0  # boxes that reach beyond the image are compared as what is left of them


def ordered(xyxy, labels, scores) -> np.ndarray:
    """Return objects as rows, in an order that does not depend on which of two equal scores comes first."""
    rows = np.column_stack([np.round(scores, 5), labels, xyxy])
    return rows[np.lexsort((np.round(xyxy[:, 1], 2), np.round(xyxy[:, 0], 2), labels, -rows[:, 0]))]


def test_an_image_without_objects_gives_none():
    model = with_suppression(onnx.load_from_string(detector_file()), 1.0, 0.6, 100)
    session = load_session(model.SerializeToString(), threads=1)
    tensor = normalize(np.zeros((1, SIZE, SIZE, 3), np.uint8), PREPROCESSING)
    found = session.run(None, {"images": tensor, INSIDE: np.array([0, 0, SIZE, SIZE], np.float32)})
    assert [item.shape for item in found] == [(0, 4), (0,), (0,)]


def test_a_file_that_is_no_detector_is_refused():
    model = onnx.load_from_string(detector_file())
    del model.graph.output[1]
    with pytest.raises(ValueError, match="logits and boxes"):
        with_suppression(model, 0.3, 0.6, 100)
