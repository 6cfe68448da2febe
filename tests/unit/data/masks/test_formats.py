"""Data sets with masks in every format, and every mask that cannot be used."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from kinglet.data.masks.faults import VOID
from kinglet.data.masks.formats import read_masked_images
from kinglet.data.masks.masked_images import turned, without_classes
from kinglet.errors import KingletError
from tests.unit.data.masks.masked_folder import halves, read, write_image, write_mask, write_masked

RED, BLUE, BLACK = [200, 0, 0], [0, 0, 200], [0, 0, 0]


def write_pair(root: Path, mask: Any, name: str = "a", mode: str | None = None) -> Path:
    write_image(root / "images" / f"{name}.jpg", len(list(root.glob("images/*"))))
    write_mask(root / "masks" / f"{name}.png", mask, mode)
    return root


def test_binary_masks_are_background_and_foreground(tmp_path: Path) -> None:
    found = read(write_masked(tmp_path, 2))
    assert (found.format, found.classes) == ("masks", ("background", "foreground"))
    assert [image.path for image in found.images] == ["images/00.jpg", "images/01.jpg"]
    assert found.images[0].pixels == (13 * 30, 27 * 30)
    drawn = pickle.loads(pickle.dumps(found.masks)).draw(found.images[1])
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn, halves())


@pytest.mark.parametrize(
    ("mask", "mode"),
    [
        (halves(left=3, right=5), None),
        (halves(left=3, right=5), "P"),
        (halves(left=3, right=5).astype(np.uint16), None),
        (halves(left=[3, 3, 3], right=[5, 5, 5]), None),
    ],
    ids=["gray", "palette", "16 bits", "gray as RGB"],
)
def test_numbers_are_classes_in_every_mode(tmp_path: Path, mask: Any, mode: str | None) -> None:
    found = read(write_pair(tmp_path, mask, mode=mode))
    assert found.classes == ("3", "5")
    np.testing.assert_array_equal(found.masks.draw(found.images[0]), halves())


def test_a_table_of_colours_explains_colour_and_palette_masks(tmp_path: Path) -> None:
    write_pair(tmp_path, halves(left=RED, right=BLUE), "a")
    colored = halves(left=BLUE, right=BLACK)
    Image.fromarray(colored).quantize(3).save(write_pair(tmp_path, colored, "b") / "masks" / "b.png")
    (tmp_path / "label_colors.txt").write_text("0 0 0\tVoid\n0 0 200\tsea\n200 0 0\tfire\n9 9 9\tice\n")
    found = read(tmp_path)
    assert found.classes == ("sea", "fire")
    assert found.notes == (
        "classes are read from label_colors.txt",
        "classes without a pixel are left out: ice",
    )
    np.testing.assert_array_equal(found.masks.draw(found.images[0]), halves(left=1, right=0))
    np.testing.assert_array_equal(found.masks.draw(found.images[1]), halves(left=0, right=VOID))
    assert [(image.pixels, image.void) for image in found.images] == [((810, 390), 0), ((390, 0), 810)]


def test_a_list_of_names_names_numbers_and_255_is_void(tmp_path: Path) -> None:
    write_pair(tmp_path, halves(left=2, right=0), "a")
    write_pair(tmp_path, halves(left=2, right=255), "b")
    (tmp_path / "classes.txt").write_text("wall\ndoor\nfloor\n")
    found = read(tmp_path)
    assert found.classes == ("wall", "floor")
    np.testing.assert_array_equal(found.masks.draw(found.images[1]), halves(left=1, right=VOID))
    assert (found.images[1].pixels, found.images[1].void) == ((0, 390), 810)


def test_colours_without_a_table_are_refused_with_the_colours(tmp_path: Path) -> None:
    write_pair(tmp_path, halves(left=RED, right=BLUE))
    with pytest.raises(
        KingletError, match=r"masks/a\.png is a mask of 2 colours \(\(0, 0, 200\), \(200, 0, 0\)\), and"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("damage", "fault", "said"),
    [
        (
            lambda file: write_mask(file, halves((30, 40))[:, :20]),
            "other_size",
            "has 20 x 40 pixels, its image 40 x 30",
        ),
        (
            lambda file: write_mask(file, halves(right=7)),
            "unknown_code",
            "holds the value 7, which is that of no class",
        ),
        (
            lambda file: write_mask(file, halves(left=BLUE, right=RED)),
            "unknown_code",
            r"holds the colour \(0, 0, 200\)",
        ),
        (lambda file: write_mask(file, halves(left=255, right=255)), "all_void", "its mask is void everywhere"),
        (lambda file: file.write_bytes(b""), "unread", r"its mask masks/b\.png cannot be read: not an image"),
        (lambda file: file.write_bytes(file.read_bytes()[:-40]), "unread", "cannot be read: truncated PNG"),
        (lambda file: Image.fromarray(halves()).save(file, "JPEG"), "unread", "is a JPEG file, which does not keep"),
    ],
    ids=["size", "value", "colour", "void", "empty", "cut off", "JPEG"],
)
def test_a_mask_that_cannot_be_used_is_the_problem_of_its_image_alone(
    tmp_path: Path, damage: Any, fault: str, said: str
) -> None:
    for name in "abc":
        write_pair(tmp_path, halves(), name)
    (tmp_path / "classes.txt").write_text("wall\ndoor\n")
    damage(tmp_path / "masks" / "b.png")
    found = read(tmp_path)
    assert [image.fault for image in found.images] == ["", fault, ""]
    assert re.search(said, found.images[1].problem)
    assert found.classes == ("wall", "door")


def test_an_image_that_cannot_be_read_is_kept_for_its_own_reason(tmp_path: Path) -> None:
    write_masked(tmp_path, 2)
    (tmp_path / "images" / "00.jpg").write_bytes(b"nothing")
    first, second = read(tmp_path).images
    assert (first.problem, first.fault) == ("image images/00.jpg cannot be used: not an image", "")
    assert second.problem == ""


def test_images_and_masks_without_a_partner_are_no_part_of_it(tmp_path: Path) -> None:
    write_masked(tmp_path, 2)
    write_image(tmp_path / "images" / "alone.jpg", 9)
    write_mask(tmp_path / "masks" / "nobody.png", halves())
    found = read(tmp_path)
    assert found.unmasked == ("images/alone.jpg",)
    assert [(finding.place, finding.reason) for finding in found.dropped] == [
        ("masks/nobody.png", "no image is called like this mask")
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_follow_photos_that_exif_turns(tmp_path: Path, orientation: int) -> None:
    """Drawn on the photo as stored, where the sizes say so; otherwise on the photo as shown."""
    write_image(tmp_path / "images" / "a.jpg", 1, (40, 30), orientation)
    stored = np.random.default_rng(0).integers(0, 2, (30, 40)).astype(np.uint8)
    write_mask(tmp_path / "masks" / "a.png", stored)
    found = read(tmp_path)
    drawn = found.masks.draw(found.images[0])
    picture = Image.fromarray(stored)
    picture.getexif()[0x0112] = orientation
    shown = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(turned(stored, orientation), shown)
    np.testing.assert_array_equal(drawn, shown if orientation >= 5 else stored)
    assert drawn.shape == (found.images[0].height, found.images[0].width)
    write_mask(tmp_path / "masks" / "a.png", shown)
    np.testing.assert_array_equal(read(tmp_path).masks.draw(found.images[0]), shown)


def test_the_split_is_that_of_the_lists_or_of_the_folders(tmp_path: Path) -> None:
    for name in "abc":
        write_image(tmp_path / "voc" / "JPEGImages" / f"{name}.jpg", ord(name))
        write_mask(tmp_path / "voc" / "SegmentationClass" / f"{name}.png", halves(), "P")
    lists = tmp_path / "voc" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n")
    (lists / "trainval.txt").write_text("a\nb\n")
    assert [image.split for image in read(tmp_path / "voc").images] == ["train", "validation", ""]
    for part in ("train", "val", "test"):
        write_image(tmp_path / "camvid" / part / "a.jpg", 1)
        write_mask(tmp_path / "camvid" / f"{part}_labels" / "a_L.png", halves())
    assert [image.split for image in read(tmp_path / "camvid").images] == ["test", "train", "validation"]


def test_pixels_of_classes_that_are_left_out_become_void(tmp_path: Path) -> None:
    write_pair(tmp_path, halves(left=0, right=1), "a")
    write_pair(tmp_path, halves(left=2, right=1), "b")
    write_pair(tmp_path, halves(left=1, right=1), "c")
    found = without_classes(read(tmp_path), ["1"])
    assert found.classes == ("0", "2")
    assert [(image.pixels, image.void) for image in found.images[:2]] == [((390, 0), 810), ((0, 390), 810)]
    assert found.images[2].problem == "its mask is void everywhere"
    np.testing.assert_array_equal(found.masks.draw(found.images[1]), halves(left=1, right=VOID))


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (halves(left=4, right=4), "has masks of one class only, '4'; two are needed"),
        (halves((20, 20)), r"no image whose mask can be used: images/a\.jpg: its mask masks/a\.png has 20 x 20 pixels"),
    ],
)
def test_masks_that_are_no_data_set_are_refused(tmp_path: Path, mask: Any, said: str) -> None:
    with pytest.raises(KingletError, match=said):
        read(write_pair(tmp_path, mask))


def test_a_folder_without_masks_is_none(tmp_path: Path) -> None:
    write_image(tmp_path / "cat" / "a.jpg", 1)
    (tmp_path / "notes.json").write_text(json.dumps({"images": []}))
    assert read_masked_images(tmp_path, ["cat/a.jpg", "notes.json"], 10**6) is None
