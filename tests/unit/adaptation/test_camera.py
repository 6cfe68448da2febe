"""The made camera: one fixed change, and noise that belongs to the image."""

from __future__ import annotations

import numpy as np
import pytest

from kinglet.adaptation.camera import STRAY_LIGHT, another_camera
from kinglet.evidence.corruptions.streams import image_keys


def pictures(n: int = 6, size: int = 28, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (n, size, size, channels), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_looks_the_same_whatever_stands_beside_it(channels: int) -> None:
    images = pictures(channels=channels)
    together = another_camera(images, image_keys(images))
    assert (together.shape, together.dtype) == (images.shape, np.uint8)
    for image, changed in zip(images, together, strict=True):
        np.testing.assert_array_equal(another_camera(image[None], image_keys(image[None]))[0], changed)


def test_noise_differs_between_images_and_seeds() -> None:
    images = np.full((2, 28, 28, 1), 120, np.uint8)
    images[1, 0, 0] = 121
    changed = another_camera(images, image_keys(images))
    assert (changed[0] != changed[1]).mean() > 0.5
    assert (another_camera(images, image_keys(images), seed=1) != changed).any()


def test_black_grows_gray_and_warm_and_light_keeps_its_order() -> None:
    levels = np.repeat(np.array([0, 64, 128, 255], np.uint8), 64 * 64 * 3).reshape(4, 64, 64, 3)
    seen = another_camera(levels, image_keys(levels)).mean(axis=(1, 2))
    assert seen[0, 1] == pytest.approx(255 * STRAY_LIGHT, abs=3)
    assert (np.diff(seen.mean(axis=1)) > 10).all()
    # Black has so little light that its cast is lost in the noise.
    assert (seen[1:, 0] > seen[1:, 1]).all()
    assert (seen[1:, 1] > seen[1:, 2]).all()


def test_edges_are_softer() -> None:
    images = np.zeros((1, 64, 64, 1), np.uint8)
    images[:, :, 32:] = 255
    profile = another_camera(images, image_keys(images))[0, :, :, 0].mean(axis=0)
    between = (profile > profile[:16].mean() + 15) & (profile < profile[48:].mean() - 15)
    assert 1 <= between.sum() <= 8


@pytest.mark.parametrize(
    ("images", "keys"),
    [(pictures().astype(float), 6), (pictures()[..., :2], 6), (pictures()[0], 28), (pictures(), 5)],
    ids=["float", "two channels", "one image without a batch", "too few keys"],
)
def test_wrong_images_are_refused(images: np.ndarray, keys: int) -> None:
    with pytest.raises(ValueError):
        another_camera(images, np.zeros(keys, np.uint64))


def test_no_image_is_no_problem() -> None:
    assert another_camera(pictures(0), np.zeros(0, np.uint64)).shape == (0, 28, 28, 3)
