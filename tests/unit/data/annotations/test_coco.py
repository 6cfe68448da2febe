"""COCO's JSON: what is read, what is dropped with its place, and what ends with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kinglet.data.annotations import Annotations
from kinglet.errors import KingletError

Write = Callable[[dict[str, Any]], Path]
Read = Callable[[Path], Annotations]


def coco(annotations: list[Any], **more: Any) -> dict[str, Any]:
    """Return a file with one image of 40 x 30 pixels and two classes."""
    content: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 40, "height": 30}],
        "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}],
    }
    return {**content, "annotations": annotations, **more}


def box(*bbox: Any, category: Any = 3, image: Any = 7, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(bbox), **more}


def test_boxes_become_corners_and_files_name_their_split(write: Write, read: Read) -> None:
    other = coco([], images=[{"id": 1, "file_name": "b.jpg"}])
    root = write(
        {
            "train/_annotations.coco.json": coco([box(10, 5, 20, 10.5), box(0, 0, 40, 30, category=1)]),
            "train/a.jpg": (40, 30),
            "valid/_annotations.coco.json": other,
            "valid/b.jpg": (8, 9),
        }
    )
    found = read(root)
    assert [(image.path, image.split) for image in found.images] == [
        ("train/a.jpg", "train"),
        ("valid/b.jpg", "validation"),
    ]
    boxes = [(box.label, box.xyxy) for box in found.images[0].boxes]
    assert boxes == [("dog", (10, 5, 30, 15.5)), ("cat", (0, 0, 40, 30))]
    assert (found.images[1].width, found.images[1].height, found.images[1].boxes) == (8, 9, ())
    assert (found.classes, found.dropped, found.changed) == (("cat", "dog"), (), ())


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (box(1, 2, 3, 4, category=9), "its category_id 9 is that of no category"),
        (box(1, 2, 3, 4, image=8), "its image_id 8 is that of no image"),
        (box(1, 2, 0, 4), "its box has no area: (1, 2, 1, 6)"),
        (box(1, 2, -3, 4), "its box has no area: (1, 2, -2, 6)"),
        (box(41, 2, 3, 4), "its box (41, 2, 44, 6) lies outside of the image of 40 x 30 pixels"),
        (box(1, 2, float("nan"), 4), "its box is not four finite numbers: 1.0, 2.0, nan, 6.0"),
        (box(1, 2, float("inf"), 4), "its box is not four finite numbers: 1.0, 2.0, inf, 6.0"),
        (box("left", 2, 3, 4), "its box is not four numbers: left, 2, 3, 4"),
        (box(1, 2, 3), "its box is not four finite numbers: 1, 2, 3"),
        (box(1, 2, None, 4), "its box is not four numbers: 1, 2, None, 4"),
        (box(1, 2, 0.5, 1), "its box is no larger than a pixel: (1, 2, 1.5, 3)"),
        (box(1, 2, 9, 9, iscrowd=1), "a crowd of 'dog', no single object"),
        ({"image_id": 7, "category_id": 3}, "its box is not four numbers: None"),
        ("dog", "its image_id dog is that of no image"),
    ],
)
def test_what_is_no_box_is_dropped_with_its_index(write: Write, read: Read, annotation: Any, reason: str) -> None:
    good = box(4, 4, 9, 9)
    found = read(write({"a.json": coco([good, annotation]), "a.jpg": (40, 30)}))
    assert [(item.place, item.reason) for item in found.dropped] == [("a.json, annotations[1]", reason)]
    assert [len(image.boxes) for image in found.images] == [1]


def test_numbers_that_are_texts_are_read_as_numbers(write: Write, read: Read) -> None:
    found = read(write({"a.json": coco([box("1", "2", "10", "4.5")]), "a.jpg": (40, 30)}))
    assert found.images[0].boxes[0].xyxy == (1, 2, 11, 6.5)


def test_a_box_over_the_edge_is_cut_and_told_but_not_for_rounding(write: Write, read: Read) -> None:
    found = read(write({"a.json": coco([box(-0.4, 0, 10, 10), box(30, 20, 20, 20)]), "a.jpg": (40, 30)}))
    assert [item.xyxy for item in found.images[0].boxes] == [(0, 0, 9.6, 10), (30, 20, 40, 30)]
    assert [item.place for item in found.changed] == ["a.json, annotations[1]"]


def test_an_object_that_stands_there_twice_counts_once(write: Write, read: Read) -> None:
    same = [box(1, 2, 3, 4), box(1, 2, 3, 4), box(1, 2, 3, 4, category=1)]
    found = read(write({"a.json": coco(same), "a.jpg": (40, 30)}))
    assert len(found.images[0].boxes) == 2
    assert found.dropped[0].reason == "repeats the 'dog' of a.json, annotations[0]"


def test_images_that_are_not_there_or_of_another_size_are_listed(write: Write, read: Read) -> None:
    images = [
        {"id": 7, "file_name": "a.jpg", "width": 40, "height": 30},
        {"id": 8, "file_name": "gone.jpg"},
        {"id": 9, "file_name": "small.jpg", "width": 40, "height": 30},
        {"id": 10, "file_name": "broken.jpg"},
    ]
    root = write(
        {
            "a.json": coco([box(1, 2, 3, 4, image=8)], images=images),
            "images/a.jpg": (40, 30),
            "images/small.jpg": (20, 15),
            "images/broken.jpg": "no image",
        }
    )
    found = read(root)
    assert [image.path for image in found.images] == ["images/a.jpg"]
    assert [item.reason for item in found.dropped] == [
        "image gone.jpg does not exist; it had 1 annotations",
        "small.jpg has 20 x 15 pixels, not 40 x 30",
        "image images/broken.jpg cannot be used: not an image; it had 0 annotations",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"images": [], "annotations": [\n  {"bbox": [1,}], "categories": []}', "a.json, line 2, column"),
        (coco([], categories=[{"id": 1, "name": "x"}, {"id": 1, "name": "y"}]), "categories[1] repeats the id 1"),
        (coco([], categories=[{"id": 1, "name": "x"}, {"id": 2, "name": "x"}]), "or the name 'x'"),
        (coco([], categories=[{"id": 1}]), "categories[0] has no id or no name"),
        (coco([], images=[{"id": 1, "file_name": "a.jpg"}] * 2), "images[1] has the id 1 of a.json, images[0]"),
        (
            coco([], images=[{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "a.jpg"}]),
            "images[1] names a.jpg, as a.json, images[0] does",
        ),
        (coco([], images=[{"id": 1}]), "images[0] has no id or no file_name"),
        (coco([], images=[{"id": 1, "file_name": "gone.jpg"}]), "holds no image that can be used: a.json, images[0]"),
    ],
)
def test_contradictions_end_with_file_and_index(write: Write, read: Read, content: Any, words: str) -> None:
    root = write({"a.json": content, "a.jpg": (40, 30)})
    with pytest.raises(KingletError) as caught:
        read(root)
    assert words in caught.value.message


def test_two_files_must_not_annotate_one_image(write: Write, read: Read) -> None:
    root = write({"train.json": coco([]), "val.json": coco([]), "a.jpg": (40, 30)})
    with pytest.raises(KingletError, match=r"val.json and train.json both annotate a.jpg"):
        read(root)


def test_a_name_that_many_files_have_is_nobodys(write: Write, read: Read) -> None:
    content = coco([], images=[{"id": 1, "file_name": "b.jpg"}, {"id": 2, "file_name": "x.jpg"}])
    root = write({"a.json": content, "one/b.jpg": (9, 9), "two/b.jpg": (9, 9), "deep/er/x.jpg": (9, 9)})
    found = read(root)
    assert [image.path for image in found.images] == ["deep/er/x.jpg"]
    assert "b.jpg can be any of 2 files, such as one/b.jpg and two/b.jpg" in found.dropped[0].reason
