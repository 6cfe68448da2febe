"""Masks out of COCO's polygons and run lengths, and outlines that cannot be used."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_masks

from kinglet.data.masks.masked_images import without_classes
from kinglet.errors import KingletError
from tests.unit.data.masks.masked_folder import read, write_image

SQUARE = [[10, 5, 20, 5, 20, 15, 10, 15]]


def write_coco(root: Path, *outlines: tuple[int, Any], size: tuple[int, int] = (40, 30), orientation: int = 1) -> Path:
    """Write one image and its outlines, (category, segmentation); the categories are 3 "dog", 1 "cat" and 2 "bird"."""
    write_image(root / "a.jpg", 1, size, orientation)
    names = {3: "dog", 1: "cat", 2: "bird"}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": size[0], "height": size[1]}],
        "categories": [{"id": number, "name": name} for number, name in names.items()],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": category, "segmentation": outline}
            for number, (category, outline) in enumerate(outlines)
        ],
    }
    (root / "instances.json").write_text(json.dumps(content))
    return root


def expected(size: tuple[int, int] = (40, 30), **places: tuple[int, int, int, int]) -> np.ndarray:
    """Return a mask of 0 with 1, 2, ... where the places (left, top, right, bottom) are, in their order."""
    mask = np.zeros(size[::-1], np.uint8)
    for index, (left, top, right, bottom) in enumerate(places.values(), start=1):
        mask[top:bottom, left:right] = index
    return mask


def run_lengths(mask: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a mask of 0 and 1 as run lengths in numbers, and in COCO's text."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]]))).tolist()
    runs = np.diff([0, *edges]).tolist()
    text = coco_masks.encode(np.asfortranarray(mask))["counts"].decode()
    return {"size": list(mask.shape), "counts": runs}, {"size": list(mask.shape), "counts": text}


def test_polygons_and_both_kinds_of_run_lengths_give_the_same_mask(tmp_path: Path) -> None:
    square = expected(square=(10, 5, 20, 15))
    for outline in (SQUARE, *run_lengths(square)):
        found = read(write_coco(tmp_path, (3, outline)))
        assert (found.format, found.classes) == ("COCO JSON", ("background", "dog"))
        assert not found.dropped
        drawn = pickle.loads(pickle.dumps(found.masks)).draw(found.images[0])
        np.testing.assert_array_equal(drawn, square)
        assert found.images[0].pixels == (1100, 100)


def test_the_smaller_outline_lies_on_top_whatever_their_order(tmp_path: Path) -> None:
    large, small = (3, [[0, 0, 30, 0, 30, 30, 0, 30]]), (2, SQUARE)
    for outlines in ((large, small), (small, large)):
        found = read(write_coco(tmp_path, *outlines))
        assert found.classes == ("background", "dog", "bird")
        np.testing.assert_array_equal(
            found.masks.draw(found.images[0]), expected(dog=(0, 0, 30, 30), bird=(10, 5, 20, 15))
        )
    assert "classes without a pixel are left out: cat" in found.notes


def test_outlines_of_a_class_that_is_left_out_are_void(tmp_path: Path) -> None:
    found = read(write_coco(tmp_path, (3, [[0, 0, 30, 0, 30, 30, 0, 30]]), (2, SQUARE)))
    left = without_classes(found, ["bird"])
    drawn = left.masks.draw(left.images[0])
    assert left.classes == ("background", "dog")
    assert (drawn[5:15, 10:20] == 255).all()
    assert (left.images[0].pixels, left.images[0].void) == ((300, 800), 100)


def test_outlines_follow_a_photo_that_exif_turns(tmp_path: Path) -> None:
    found = read(write_coco(tmp_path, (3, SQUARE), orientation=6))
    image = found.images[0]
    assert (image.width, image.height) == (30, 40)
    np.testing.assert_array_equal(found.masks.draw(image), expected((30, 40), square=(15, 10, 25, 20)))


@pytest.mark.parametrize(
    ("outline", "said"),
    [
        ([], "it has no outline"),
        (None, "it has no outline"),
        ([[1, 2, 3, 4]], "no list of polygons, each of three points or more"),
        ([[1, 2, "x", 4, 5, 6]], "no list of polygons"),
        ([[1, 2, float("nan"), 4, 5, 6]], "no list of polygons"),
        ([[50, 50, 60, 50, 60, 60]], "covers no pixel"),
        (
            {"size": [40, 30], "counts": [0, 1200]},
            r"run lengths are of \[40, 30\], the image's height and width \[30, 40",
        ),
        ({"size": [30, 40], "counts": [0, 1199]}, "add up to 1199 and not to 1200 pixels"),
        ({"size": [30, 40], "counts": "no run lengths"}, "its outline cannot be drawn"),
        ({"size": [30, 40]}, "its outline cannot be drawn"),
        ("circle", "its outline cannot be drawn"),
    ],
)
def test_an_outline_that_cannot_be_used_is_named_with_its_index(tmp_path: Path, outline: Any, said: str) -> None:
    found = read(write_coco(tmp_path, (3, SQUARE), (2, outline)))
    assert [finding.place for finding in found.dropped] == ["instances.json, annotations[1]"]
    assert re.search(said, found.dropped[0].reason)
    assert found.classes == ("background", "dog")


def test_unknown_categories_and_missing_images_are_named(tmp_path: Path) -> None:
    write_coco(tmp_path, (3, SQUARE), (7, SQUARE))
    content = json.loads((tmp_path / "instances.json").read_text())
    content["images"].append({"id": 2, "file_name": "gone.jpg"})
    (tmp_path / "instances.json").write_text(json.dumps(content))
    write_image(tmp_path / "b.jpg", 2)
    found = read(tmp_path)
    assert [(finding.place, finding.reason) for finding in found.dropped] == [
        ("instances.json, annotations[1]", "its category_id 7 is that of no category"),
        ("instances.json, images[1]", "image gone.jpg does not exist; it had 0 annotations"),
    ]
    assert found.unmasked == ("b.jpg",)


def test_two_files_for_one_image_are_refused(tmp_path: Path) -> None:
    write_coco(tmp_path, (3, SQUARE))
    (tmp_path / "more.json").write_text((tmp_path / "instances.json").read_text())
    with pytest.raises(KingletError, match=r"more\.json and instances\.json both annotate a\.jpg"):
        read(tmp_path)
