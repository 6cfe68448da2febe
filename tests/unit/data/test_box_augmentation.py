"""Augmentation keeps boxes on their objects: what it says is compared with the pixels that it draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinglet.data.box_augmentation import BOX_AUGMENTATIONS, SMALLEST_SEEN_SHARE, Span, Tile, draw, plan, show
from kinglet.data.boxed_images import BoxedImages, Objects
from tests.unit.data.painted_rectangles import COLOURS, painted

N = 24


def is_colour(picture, label, tolerance=60):
    return (np.abs(picture.astype(int) - COLOURS[label].astype(int)) <= tolerance).all(-1)


def extent(mask):
    """Return left, top, right, bottom of the true pixels."""
    ys, xs = np.nonzero(mask)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("names", [(), ("flip",), ("flip_vertically",), ("crop",), ("mosaic",), BOX_AUGMENTATIONS])
def test_boxes_stay_on_their_objects(names: tuple[str, ...], size: int) -> None:
    images = painted(N, border=8)
    n_checked = 0
    for position in range(N):
        for tile in plan(images, position, size, names, np.random.default_rng(position), 0.7):
            picture = np.zeros((size, size, 3), np.uint8)
            draw(images, tile, picture)
            found = tile.objects(images.objects[tile.position])
            for (x1, y1, x2, y2), label in zip(found.xyxy, found.labels, strict=True):
                assert 0 <= x1 < x2 <= size
                assert 0 <= y1 < y2 <= size
                left, top = max(0, int(x1) - 2), max(0, int(y1) - 2)
                around = is_colour(picture[top : int(y2) + 3, left : int(x2) + 3], label)
                # Antialiasing mixes the edge with what is around it.
                np.testing.assert_allclose(
                    extent(around) + np.array([left, top, left, top]), [x1, y1, x2, y2], atol=1.6
                )
                n_checked += 1
    assert n_checked >= N


@pytest.mark.parametrize("names", [("crop",), BOX_AUGMENTATIONS])
def test_every_object_in_sight_has_its_box(names: tuple[str, ...]) -> None:
    images = painted(N)
    pictures, objects = show(images, range(N), 64, names, (3,))
    for picture, found in zip(pictures, objects, strict=True):
        missed = np.zeros((64, 64), bool)
        for label in range(len(COLOURS)):
            missed |= is_colour(picture, label)
        for x1, y1, x2, y2 in found.xyxy:
            missed[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = False
        # What may be left are parts of objects that are too small to count.
        assert missed.sum() <= 4 * SMALLEST_SEEN_SHARE * 21 * 21


def test_without_augmentation_a_picture_is_the_image_with_its_boxes() -> None:
    images = painted(3, border=8)
    pictures, objects = show(images, [2, 0], 64, (), (0,))
    np.testing.assert_array_equal(pictures, images.packed[[2, 0]])
    for found, position in zip(objects, (2, 0), strict=True):
        np.testing.assert_array_equal(found.xyxy, images.objects[position].xyxy)
        np.testing.assert_array_equal(found.labels, images.objects[position].labels)


def test_a_flip_mirrors_pixels_and_boxes_of_half_of_the_images() -> None:
    images = painted(N)
    pictures, objects = show(images, range(N), 64, ("flip",), (0,))
    flipped = [not np.array_equal(one, two) for one, two in zip(pictures, images.packed, strict=True)]
    assert N // 4 < sum(flipped) < 3 * N // 4
    for index in np.flatnonzero(flipped):
        np.testing.assert_array_equal(pictures[index], images.packed[index][:, ::-1])
        given = images.objects[index].xyxy
        np.testing.assert_array_equal(
            objects[index].xyxy, np.stack([64 - given[:, 2], given[:, 1], 64 - given[:, 0], given[:, 3]], 1)
        )


def test_a_picture_depends_on_seeds_and_position_and_not_on_the_batch() -> None:
    images = painted(N)
    together, objects = show(images, range(N), 64, BOX_AUGMENTATIONS, (1, 2))
    alone, alone_objects = show(images, [5], 64, BOX_AUGMENTATIONS, (1, 2))
    np.testing.assert_array_equal(alone[0], together[5])
    np.testing.assert_array_equal(alone_objects[0].xyxy, objects[5].xyxy)
    other, _ = show(images, [5], 64, BOX_AUGMENTATIONS, (1, 3))
    assert not np.array_equal(other, alone)


def test_a_mosaic_shows_the_example_and_three_others_and_no_border_of_theirs() -> None:
    images = painted(N, border=8)
    generator = np.random.default_rng(0)
    tiles = plan(images, 4, 64, ("mosaic", "crop"), generator, 1.0)
    assert tiles[0].position == 4
    assert len(tiles) == 4
    for tile in tiles:
        assert tile.y.source >= 8
        assert tile.y.source + tile.y.source_length <= 56
    assert len(plan(images, 4, 64, ("mosaic", "crop"), generator, 0.0)) == 1


@given(
    source=st.integers(0, 50),
    source_length=st.integers(1, 60),
    target=st.integers(0, 50),
    target_length=st.integers(1, 60),
    flipped=st.booleans(),
)
def test_where_a_span_moves_intervals_can_be_undone(
    source: int, source_length: int, target: int, target_length: int, flipped: bool
) -> None:
    there = Span(source, source_length, target, target_length, flipped)
    back = Span(target, target_length, source, source_length, flipped)
    low, high = np.array([source, source + 0.25]), np.array([source + source_length, source + 0.5])
    np.testing.assert_allclose(back.moved(*there.moved(low, high)), (low, high), atol=1e-6)
    start, end = there.moved(low[:1], high[:1])
    assert (start[0], end[0]) == pytest.approx((target, target + target_length))


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ([10, 10, 20, 20], [10, 10, 20, 20]),  # whole
        ([35, 10, 45, 20], [35, 10, 40, 20]),  # half of it
        ([38, 10, 48, 20], None),  # a fifth
        ([39, 10, 41, 20], None),  # half of it, but one pixel
        ([50, 10, 60, 20], None),  # none
    ],
)
def test_what_is_cut_off_counts_as_long_as_enough_is_seen(box: list[int], kept: list[int] | None) -> None:
    tile = Tile(0, Span(0, 40, 0, 40), Span(0, 40, 0, 40))
    seen = tile.objects(Objects(np.array([box], np.float32), np.array([1])))
    assert seen.xyxy.tolist() == ([] if kept is None else [kept])
    assert len(seen.labels) == len(seen.xyxy)


def test_images_without_objects_stay_without() -> None:
    nothing = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    images = BoxedImages(
        np.full((2, 32, 32, 1), 9, np.uint8), np.arange(2), np.array([[0, 0, 32, 32]] * 2), (nothing,) * 2
    )
    pictures, objects = show(images, [0, 1], 32, BOX_AUGMENTATIONS, (0,))
    assert pictures.shape == (2, 32, 32, 1)
    assert [found.xyxy.shape for found in objects] == [(0, 4), (0, 4)]
