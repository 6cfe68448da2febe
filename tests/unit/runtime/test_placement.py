import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinglet.runtime.preprocessing import FITS, placement, resize


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize(("width", "height"), [(640, 480), (90, 160), (96, 96), (33, 61)])
def test_a_box_drawn_into_an_image_lies_where_the_placement_says(width, height, fit):
    box = np.array([[width // 4, height // 3, width // 2, 2 * height // 3]], np.float64)
    image = np.zeros((height, width, 1), np.uint8)
    x1, y1, x2, y2 = box[0].astype(int)
    image[y1:y2, x1:x2] = 255
    rows, columns = np.nonzero(resize(image, 96, fit)[:, :, 0] > 127)
    drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(placement(width, height, 96, fit).to_input(box)[0], drawn, atol=1)


def test_the_letterbox_of_a_wide_image_has_its_borders_above_and_below():
    found = placement(640, 480, 320, "pad")
    np.testing.assert_array_equal(found.to_input(np.array([[0.0, 0, 640, 480]])), [[0, 40, 320, 280]])


def test_crop_puts_what_it_cuts_off_outside_of_the_input():
    found = placement(640, 480, 240, "crop")
    np.testing.assert_array_equal(found.to_input(np.array([[0.0, 0, 640, 480]])), [[-40, 0, 280, 240]])
    np.testing.assert_array_equal(found.to_image(np.array([[0.0, 0, 240, 240]])), [[80, 0, 560, 480]])


@given(st.integers(1, 900), st.integers(1, 900), st.integers(16, 640), st.sampled_from(FITS))
def test_the_way_to_the_input_and_back_leaves_a_box_where_it_was(width, height, size, fit):
    found = placement(width, height, size, fit)
    box = np.array([[0.1 * width, 0.2 * height, 0.7 * width, 0.9 * height]])
    np.testing.assert_allclose(found.to_image(found.to_input(box)), box, rtol=1e-9, atol=1e-9)


def test_boxes_that_leave_the_image_are_clipped_to_it_and_keep_their_type():
    found = placement(200, 100, 100, "pad").to_image(np.array([[-10, 0, 110, 100]], np.float32))
    np.testing.assert_array_equal(found, [[0, 0, 200, 100]])
    assert found.dtype == np.float32


@pytest.mark.parametrize(("width", "height", "fit"), [(0, 5, "pad"), (5, 0, "stretch"), (5, 5, "squeeze")])
def test_no_image_and_no_known_fit_have_no_placement(width, height, fit):
    with pytest.raises(ValueError, match="no placement"):
        placement(width, height, 96, fit)
