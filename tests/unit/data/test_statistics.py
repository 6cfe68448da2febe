"""Image statistics, each against a plain reference for one image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import laplace
from scipy.stats import entropy

from kinglet.data.statistics import measure, perceptual_hash, resampling_matrix
from kinglet.runtime.image_statistics import luma

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), np.uint8)


def test_luma_is_that_of_pillow() -> None:
    expected = [np.asarray(Image.fromarray(image).convert("L")) for image in IMAGES]
    assert np.abs(luma(IMAGES) - np.stack(expected)).max() <= 1


def test_measures_equal_those_of_one_image_at_a_time() -> None:
    found = measure(IMAGES)
    for number, gray in enumerate(luma(IMAGES).astype(np.float64)):
        unit = gray / 255
        counts = np.bincount(np.rint(gray).astype(int).ravel(), minlength=256)
        assert found["brightness"][number] == pytest.approx(unit.mean(), rel=1e-5)
        assert found["contrast"][number] == pytest.approx(unit.std(), rel=1e-5)
        assert found["sharpness"][number] == pytest.approx(laplace(unit)[1:-1, 1:-1].var(), rel=1e-4)
        assert found["entropy"][number] == pytest.approx(entropy(counts, base=2), rel=1e-6)


@pytest.mark.parametrize("edge", [32, 48, 128])
def test_perceptual_hash_equals_that_by_a_two_dimensional_dct(edge: int) -> None:
    grays = np.random.default_rng(1).random((4, edge, edge)).astype(np.float32)
    matrix = resampling_matrix(edge, 32).astype(np.float64)
    for gray, found in zip(grays, perceptual_hash(grays), strict=True):
        kept = dctn(matrix @ gray @ matrix.T, norm="ortho")[1:9, 1:9].ravel()
        bits = "".join("1" if value > np.median(kept) else "0" for value in kept)
        assert bin(int(bits, 2) ^ int(found)).count("1") <= 1  # float32 may turn a value beside the median


@pytest.mark.parametrize(("n_in", "n_out"), [(128, 32), (48, 32), (16, 32), (32, 32)])
def test_resampling_is_that_of_pillow(n_in: int, n_out: int) -> None:
    line = np.random.default_rng(2).random(n_in).astype(np.float32)
    expected = Image.fromarray(line[None, :]).resize((n_out, 1), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(resampling_matrix(n_in, n_out) @ line, np.asarray(expected)[0], atol=1e-4)


def test_blank_image_has_no_contrast_entropy_or_sharpness() -> None:
    found = measure(np.full((1, 32, 32, 1), 7, np.uint8))
    assert found["contrast"][0] < 1e-6
    assert found["entropy"][0] == 0
    assert found["sharpness"][0] < 1e-9
