"""Pascal VOC's XML: counted from 1 or from 0, lists of a split, and what is dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kinglet.data.annotations import Annotations

Write = Callable[[dict[str, Any]], Path]
Read = Callable[[Path], Annotations]


def voc(*objects: tuple[Any, ...], name: str = "a.jpg", size: tuple[int, int] | None = (40, 30)) -> str:
    sides = ("xmin", "ymin", "xmax", "ymax")
    inner = "".join(
        f"<object><name>{label}</name><bndbox>"
        f"{''.join(f'<{side}>{value}</{side}>' for side, value in zip(sides, values, strict=False))}</bndbox></object>"
        for label, *values in objects
    )
    given = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation><filename>{name}</filename>{given}{inner}</annotation>"


def test_pixels_count_from_one_and_the_last_belongs_to_the_object(write: Write, read: Read) -> None:
    root = write({"JPEGImages/a.jpg": (40, 30), "Annotations/a.xml": voc(("dog", 1, 1, 40, 30), ("cat", 3, 4, 12, 14))})
    found = read(root)
    assert [(box.label, box.xyxy) for box in found.images[0].boxes] == [
        ("dog", (0, 0, 40, 30)),
        ("cat", (2, 3, 12, 14)),
    ]
    assert (found.notes, found.changed) == (("pixels count from 1, as VOC's do",), ())


def test_a_box_that_begins_at_zero_makes_all_count_from_zero(write: Write, read: Read) -> None:
    root = write(
        {
            "a.jpg": (40, 30),
            "a.xml": voc(("dog", 0, 5, 40, 30)),
            "b.jpg": (40, 30),
            "b.xml": voc(("dog", 3, 4, 12, 14), name="b.jpg"),
        }
    )
    found = read(root)
    assert [image.boxes[0].xyxy for image in found.images] == [(0, 5, 40, 30), (3, 4, 12, 14)]
    assert found.notes == ("pixels count from 0: some boxes begin there",)


def test_the_lists_of_a_split_are_followed(write: Write, read: Read) -> None:
    files: dict[str, Any] = {"ImageSets/Main/trainval.txt": "a\nb\n", "ImageSets/Main/dog_train.txt": "a  1\nb -1\n"}
    for name, part in (("a", "train"), ("b", "val"), ("c", "test")):
        files |= {
            f"JPEGImages/{name}.jpg": (40, 30),
            f"Annotations/{name}.xml": voc(("dog", 2, 2, 9, 9), name=f"{name}.jpg"),
            f"ImageSets/Main/{part}.txt": f"{name}\n",
        }
    assert [image.split for image in read(write(files)).images] == ["train", "validation", "test"]


@pytest.mark.parametrize(
    ("bad", "place", "reason"),
    [
        (voc(("dog", 9, 9, 9, 9), name="b.jpg"), "b.xml, object 1", "its box is no larger than a pixel"),
        (voc(("dog", 9, 9, 5, 20), name="b.jpg"), "b.xml, object 1", "its box has no area: (8, 8, 5, 20)"),
        (voc(("dog", "x", 9, 5, 20), name="b.jpg"), "b.xml, object 1", "its box is not four numbers: x, 9, 5, 20"),
        (voc(("dog", 9, 9), name="b.jpg"), "b.xml, object 1", "its box is not four numbers: 9, 9, , "),
        (voc(("", 9, 9, 12, 20), name="b.jpg"), "b.xml, object 1", "has no name"),
        (voc(("dog", 2, 2, 9, 9), name="gone.jpg"), "b.xml", "image gone.jpg does not exist; it had 1 objects"),
        (voc(("dog", 2, 2, 9, 9), name="b.jpg", size=(10, 10)), "b.xml", "b.jpg has 40 x 30 pixels, not 10 x 10"),
        (voc(("dog", 2, 2, 9, 9), name="a.jpg"), "b.xml", "annotates a.jpg, which another file does"),
        ("<annotation>\n<object>", "b.xml, line 2", "is no XML: no element found"),
    ],
)
def test_what_cannot_be_used_is_listed_with_its_place(
    write: Write, read: Read, bad: str, place: str, reason: str
) -> None:
    root = write({"a.jpg": (40, 30), "a.xml": voc(("dog", 2, 2, 9, 9)), "b.jpg": (40, 30), "b.xml": bad})
    found = read(root)
    assert [item.place for item in found.dropped] == [place]
    assert found.dropped[0].reason.startswith(reason)
    assert len(found.images[0].boxes) == 1


def test_a_file_without_a_size_or_a_suffix_takes_the_images(write: Write, read: Read) -> None:
    found = read(write({"a.jpg": (40, 30), "a.xml": voc(("dog", 2, 2, 9, 9), name="a", size=None)}))
    assert (found.images[0].path, found.images[0].width) == ("a.jpg", 40)
