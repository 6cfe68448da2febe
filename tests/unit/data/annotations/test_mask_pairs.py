"""Which mask belongs to which image, as people's data sets lie on disks."""

from __future__ import annotations

import pytest

from kinglet.data.annotations.mask_pairs import pair_masks
from kinglet.errors import KingletError


@pytest.mark.parametrize(
    ("files", "masks"),
    [
        (["images/a.jpg", "masks/a.png"], {"images/a.jpg": "masks/a.png"}),
        (["a.jpg", "masks/a.png"], {"a.jpg": "masks/a.png"}),
        (["x/train/image/0.png", "x/train/label/0.png"], {"x/train/image/0.png": "x/train/label/0.png"}),
        (["JPEGImages/a.jpg", "SegmentationClass/a.png", "SegmentationObject/a.png"], {"JPEGImages/a.jpg": None}),
        (["train/a.png", "train_labels/a_L.png", "val/a.png", "val_labels/a_L.png"], {"train/a.png": None}),
        (["train/a.png", "trainannot/a.png", "test/a.png", "testannot/a.png"], {"test/a.png": "testannot/a.png"}),
        (["images/training/a.jpg", "annotations/training/a.png"], {"images/training/a.jpg": None}),
        (["images/day/a.jpg", "masks/a.png"], {"images/day/a.jpg": "masks/a.png"}),
        (["train/a.jpg", "train/a_mask.png", "valid/b.jpg", "valid/b_mask.png"], {"valid/b.jpg": "valid/b_mask.png"}),
        (["1_sat.jpg", "1_mask.png"], {"1_sat.jpg": "1_mask.png"}),
        (
            ["leftImg8bit/train/ulm/u_1_leftImg8bit.png", "gtFine/train/ulm/u_1_gtFine_labelIds.png"],
            {"leftImg8bit/train/ulm/u_1_leftImg8bit.png": "gtFine/train/ulm/u_1_gtFine_labelIds.png"},
        ),
    ],
)
def test_known_layouts_give_pairs(files: list[str], masks: dict[str, str | None]) -> None:
    found = pair_masks(files)
    for image, mask in masks.items():
        assert found.masks[image] == (mask or found.masks[image])
    assert not found.without_image
    objects = sum("Object" in path for path in files)
    assert 2 * len(found.masks) == len(files) - objects


def test_files_of_a_part_of_a_split_stay_in_it() -> None:
    found = pair_masks(["train/a.png", "train_labels/a_L.png", "val/a.png", "val_labels/a_L.png"])
    assert found.masks == {"train/a.png": "train_labels/a_L.png", "val/a.png": "val_labels/a_L.png"}


def test_what_has_no_partner_is_named() -> None:
    found = pair_masks(["images/a.jpg", "images/b.jpg", "masks/a.png", "masks/c.png", "images/.d.jpg", "notes.txt"])
    assert found.masks == {"images/a.jpg": "masks/a.png"}
    assert found.without_mask == ("images/b.jpg",)
    assert found.without_image == ("masks/c.png",)


@pytest.mark.parametrize(
    "files",
    [[], ["cat/a.jpg", "dog/b.jpg"], ["cat/a.jpg", "cat/a_l.jpg"], ["masks/a.png", "gloves/b.png"]],
    ids=["nothing", "classes", "left and right", "a class called masks"],
)
def test_other_folders_give_none(files: list[str]) -> None:
    assert not pair_masks(files).masks


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["images/a.jpg", "masks/a.png", "labels/a.png"], "images/a.jpg has two masks, labels/a.png and masks/a.png"),
        (["images/a.jpg", "images/a.png", "masks/a.png"], "masks/a.png is the mask of images/a.jpg and of images/a.p"),
    ],
)
def test_two_of_one_name_are_refused(files: list[str], said: str) -> None:
    with pytest.raises(KingletError, match=said):
        pair_masks(files)
