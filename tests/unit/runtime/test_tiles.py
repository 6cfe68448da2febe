"""Tiles cover every pixel of an image once, see beyond what they answer for, and are put together as they were cut."""

import numpy as np
import pytest

from kinglet.runtime.tiles import MARGIN_SHARE, put_together, tiles_of


@pytest.mark.parametrize(("width", "height"), [(64, 64), (65, 64), (10, 200), (640, 97), (113, 112), (1000, 999)])
def test_each_pixel_has_one_tile_that_answers_for_it(width: int, height: int) -> None:
    answered = np.zeros((height, width), int)
    for tile in tiles_of(width, height, 64):
        assert 0 <= tile.left <= tile.left + tile.width <= width
        assert 0 <= tile.top <= tile.top + tile.height <= height
        assert tile.width == min(64, width)
        assert tile.height == min(64, height)
        tile.cut(answered)[tile.core] += 1
    assert (answered == 1).all()


def test_a_tile_sees_a_margin_around_what_it_answers_for_except_at_the_edges_of_the_image() -> None:
    margin = 64 // MARGIN_SHARE
    for tile in tiles_of(300, 200, 64):
        assert tile.core_left == 0 or tile.core_left - tile.left >= margin
        assert tile.core_top == 0 or tile.core_top - tile.top >= margin
        assert tile.core_right == 300 or tile.left + tile.width - tile.core_right >= margin
        assert tile.core_bottom == 200 or tile.top + tile.height - tile.core_bottom >= margin


def test_an_image_that_is_not_larger_than_a_tile_is_one() -> None:
    (tile,) = tiles_of(40, 64, 64)
    assert (tile.left, tile.top, tile.width, tile.height) == (0, 0, 40, 64)


@pytest.mark.parametrize(("width", "height"), [(50, 60), (200, 150)])
def test_parts_put_together_are_the_whole_again(width: int, height: int) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.uint8)
    tiles = tiles_of(width, height, 64)
    assert np.array_equal(put_together(tiles, [tile.cut(whole) for tile in tiles]), whole)
