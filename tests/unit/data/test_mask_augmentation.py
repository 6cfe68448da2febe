"""Augmentation keeps masks on what the pictures show: a mask is read off the picture's own pixels and compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from kinglet.data.mask_augmentation import (
    CROP,
    ELASTIC,
    FLIP,
    FLIP_VERTICALLY,
    MASK_AUGMENTATIONS,
    SCALE,
    TURN,
    show,
)
from kinglet.data.packed_masks import MaskedImages
from kinglet.runtime.segmentation import VOID

SIZE = 64


def painted(count: int = 6, size: int = SIZE, seed: int = 0) -> MaskedImages:
    """Return gray images whose smooth bright regions are class 1, the rest 0, and the mask says so."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    images = np.zeros((count, size, size))
    for place in range(count):
        for _ in range(3):
            across, down = generator.random(2)
            images[place] += np.exp(-((x - across) ** 2 + (y - down) ** 2) / generator.uniform(0.01, 0.05))
    packed = (40 + 180 * images.clip(0, 1)).astype(np.uint8)
    return MaskedImages(packed[..., None], (packed > 128).astype(np.uint8), np.arange(count))


def shown(images: MaskedImages, size: int, names, positions=range(6), seeds=(0, 0)):
    pixels, masks = show(images, list(positions), [p % len(images) for p in positions], size, names, seeds)
    return pixels.numpy(), masks.numpy()


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("names", [(), *((name,) for name in MASK_AUGMENTATIONS), MASK_AUGMENTATIONS])
def test_masks_stay_on_what_the_pictures_show(names: tuple[str, ...], size: int) -> None:
    pixels, masks = shown(painted(), size, names)
    assert pixels.shape == (6, 1, size, size)
    assert masks.shape == (6, size, size)
    assert masks.dtype == np.uint8
    # At the edge of the image pixels fade into the black around it.
    known = np.zeros(masks.shape, bool)
    known[:, 1:-1, 1:-1] = (sliding_window_view(masks, (3, 3), (1, 2)) != VOID).all((3, 4))
    # Within a few gray values of the border the nearest pixel may lie on its other side.
    clear = known & (np.abs(pixels[:, 0] - 128.5) > 24)
    assert clear.mean() > 0.4
    np.testing.assert_array_equal(masks[clear], (pixels[:, 0] > 128)[clear])


def test_without_augmentation_the_images_are_shown_as_they_are() -> None:
    images = painted()
    pixels, masks = shown(images, SIZE, ())
    np.testing.assert_allclose(pixels.transpose(0, 2, 3, 1), images.packed, atol=1e-3)
    np.testing.assert_array_equal(masks, images.masks)


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("flip", [lambda image: image, np.fliplr]),
        ("flip_vertically", [lambda image: image, np.flipud]),
        (TURN, [lambda image, k=k: np.rot90(image, k) for k in range(4)]),
    ],
)
def test_flips_and_turns_are_exact_and_all_occur(name: str, ways) -> None:
    images = painted(1)
    pixels, masks = shown(images, SIZE, (name,), range(24))
    seen = set()
    for picture, mask in zip(pixels[:, 0], masks, strict=True):
        fits = [np.allclose(picture, way(images.packed[0, :, :, 0]), atol=1e-3) for way in ways]
        assert sum(fits) == 1
        seen.add(fits.index(True))
        np.testing.assert_array_equal(mask, ways[fits.index(True)](images.masks[0]))
    assert seen == set(range(len(ways)))


@pytest.mark.parametrize(("names", "smallest", "largest"), [((CROP,), 1.0, 1.0), ((CROP, SCALE), 1 / 1.53, 1.56)])
def test_a_window_shows_a_part_at_the_images_own_scale_or_about_it(names, smallest: float, largest: float) -> None:
    """Of a ramp along x, half of the edge spans half of the values."""
    ramp = np.broadcast_to(np.arange(SIZE, dtype=np.uint8), (1, SIZE, SIZE))
    images = MaskedImages(ramp[..., None], np.zeros_like(ramp), np.zeros(1, np.int64))
    pixels, masks = shown(images, SIZE // 2, names, range(40))
    assert (masks == 0).all()
    spans = pixels[:, 0, 0, -1] - pixels[:, 0, 0, 0]
    assert spans.min() >= 31 * smallest - 0.5
    assert spans.max() <= 31 * largest + 0.5
    assert (spans.std() > 2) == (SCALE in names)
    assert np.unique(pixels[:, 0, 0, 0]).size > 20


@pytest.mark.parametrize("size", [32, 35, 63, 64])
@pytest.mark.parametrize("names", [(CROP,), (CROP, FLIP, FLIP_VERTICALLY, TURN)])
def test_a_window_at_the_images_own_scale_shows_its_pixels_and_nothing_in_between(names, size: int) -> None:
    noise = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (1, SIZE, SIZE))
    images = MaskedImages(noise[..., None], (noise > 0).astype(np.uint8), np.zeros(1, np.int64))
    pixels, masks = shown(images, size, names, range(20))
    assert np.minimum(pixels, 255 - pixels).max() < 0.1
    np.testing.assert_array_equal(masks, pixels[:, 0] > 128)
    assert len({picture.tobytes() for picture in masks}) > 1 or size == SIZE


def test_what_lies_outside_of_the_image_is_black_and_void() -> None:
    packed = np.full((1, SIZE, SIZE, 3), 200, np.uint8)
    images = MaskedImages(packed, np.ones((1, SIZE, SIZE), np.uint8), np.zeros(1, np.int64))
    pixels, masks = shown(images, SIZE, (SCALE,), range(20))
    outside = pixels.max(1) < 1
    assert outside.any()
    assert (masks[outside] == VOID).all()
    assert (masks[pixels.min(1) > 199] == 1).all()


def test_a_picture_depends_on_its_example_and_the_seeds_and_not_on_its_batch() -> None:
    images = painted()
    all_pixels, all_masks = shown(images, 32, MASK_AUGMENTATIONS, range(6))
    one_pixels, one_masks = shown(images, 32, MASK_AUGMENTATIONS, [4])
    np.testing.assert_array_equal(all_pixels[4:5], one_pixels)
    np.testing.assert_array_equal(all_masks[4:5], one_masks)
    for other in (shown(images, 32, MASK_AUGMENTATIONS, [10]), shown(images, 32, MASK_AUGMENTATIONS, [4], (0, 1))):
        assert np.abs(other[0] - one_pixels).max() > 10


def test_elastic_deformation_moves_neighbours_alike() -> None:
    ramp = np.broadcast_to(np.arange(SIZE, dtype=np.uint8) * 3, (1, SIZE, SIZE))
    images = MaskedImages(ramp[..., None], np.zeros_like(ramp), np.zeros(1, np.int64))
    pixels, _ = shown(images, SIZE, (ELASTIC,), range(20))
    inner = pixels[:, 0, 8:-8, 8:-8] / 3
    moved = inner - np.arange(8, SIZE - 8)
    assert 0.5 < np.abs(moved).max() < 0.15 * SIZE
    assert np.abs(np.diff(moved, axis=2)).max() < 0.7
    assert np.abs(np.diff(moved, axis=1)).max() < 0.7


def test_pixels_are_counted_by_class_and_void_is_not() -> None:
    masks = np.array([[[0, 1], [1, VOID]], [[1, 1], [1, 1]], [[2, 0], [0, 0]]], np.uint8)
    images = MaskedImages(np.zeros((3, 2, 2, 1), np.uint8), masks, np.array([0, 2]))
    assert images.counts(3).tolist() == [4, 2, 1]
    assert torch.is_tensor(show(images, [0], [0], 2, (), (0,))[1])
