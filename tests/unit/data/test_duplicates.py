"""Duplicates: all close pairs are found, and only true copies are merged."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from kinglet.data import duplicates
from kinglet.data.duplicates import close_pairs, exact_groups, near_groups
from kinglet.data.statistics import measure
from kinglet.runtime.image_statistics import luma


@pytest.mark.parametrize("distance", [0, 1, 2, 5, 8])
def test_close_pairs_equal_those_of_all_comparisons(distance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "PAIRS_AT_ONCE", 50)
    random = np.random.default_rng(distance)
    base = random.integers(0, 2**63, 20, np.uint64)
    hashes = np.concatenate([base, *(base ^ (np.uint64(1) << random.integers(0, 64, 20, np.uint64)) for _ in range(5))])
    expected = [
        [i, j]
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if bin(int(hashes[i]) ^ int(hashes[j])).count("1") <= distance
    ]
    assert close_pairs(hashes, distance).tolist() == expected


def test_exact_groups_are_named_by_their_first_and_undecodable_files_are_alone() -> None:
    assert exact_groups(np.array(["x", "y", "x", "", "", "y"], object)).tolist() == [0, 1, 0, 3, 4, 1]


def groups_of(images: list[np.ndarray], distance: int = 8) -> list[int]:
    packed = np.stack(images)
    facts = measure(packed)
    return near_groups(
        facts["perceptual_hash"].astype(np.uint64),
        np.arange(len(packed)),
        facts["contrast"].astype(float) >= duplicates.BLANK_CONTRAST,
        distance,
        lambda rows: luma(packed[rows]),
    ).tolist()


def scene(seed: int, edge: int = 96) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((edge, edge), Image.Resampling.BICUBIC)


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def test_recompressed_resized_and_brightened_copies_are_near_duplicates_and_others_are_not() -> None:
    copies = [
        scene(0),
        as_jpeg(scene(0), 50),
        scene(0).resize((48, 48)).resize((96, 96)),
        scene(0).point(lambda value: value * 0.9 + 10),
    ]
    assert groups_of([np.asarray(image) for image in (*copies, scene(1), scene(2))]) == [0, 0, 0, 0, 4, 5]


def test_pictures_of_one_kind_are_not_merged_although_their_hashes_are_close() -> None:
    plain = np.zeros((48, 48, 1), np.uint8)
    plain[8:40, 12:36] = 200
    pocket = plain.copy()
    pocket[14:22, 16:24] = 120
    collar = plain.copy()
    collar[8:14, 20:28] = 90
    assert groups_of([plain, pocket, collar], distance=8) == [0, 1, 2]


def test_blank_images_have_no_near_duplicates() -> None:
    assert groups_of([np.full((32, 32, 1), value, np.uint8) for value in (0, 1, 255)]) == [0, 1, 2]
