"""YOLO's text files: shares of the image, polygons, images without any object, and what is dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kinglet.data.annotations import Annotations
from kinglet.errors import KingletError

Write = Callable[[dict[str, Any]], Path]
Read = Callable[[Path], Annotations]
NAMES = "names: [cat, dog]\n"


def test_shares_become_pixels_and_images_without_a_text_are_empty(write: Write, read: Read) -> None:
    root = write(
        {
            "data.yaml": NAMES,
            "images/train/a.jpg": (40, 20),
            "labels/train/a.txt": "1 0.5 0.5 0.5 1\n\n0 0.25 0.25 0.1 0.1\n",
            "images/val/b.jpg": (8, 8),
        }
    )
    found = read(root)
    assert [(image.path, image.split, len(image.boxes)) for image in found.images] == [
        ("images/train/a.jpg", "train", 2),
        ("images/val/b.jpg", "validation", 0),
    ]
    assert found.images[0].boxes[0].label == "dog"
    assert found.images[0].boxes[0].xyxy == (10, 0, 30, 20)


def test_a_polygon_has_the_smallest_box_around_it(write: Write, read: Read) -> None:
    line = "0 0.1 0.2 0.5 0.2 0.3 0.9\n0 0.5 0.5 0.2 0.2\n"
    found = read(write({"classes.txt": "cat\n", "a.jpg": (100, 100), "a.txt": line}))
    assert found.images[0].boxes[0].xyxy == pytest.approx((10, 20, 50, 90))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2 0.5 0.5 0.2 0.2", "its class 2 is none of 0 to 1"),
        ("dog 0.5 0.5 0.2 0.2", "its class dog is none of 0 to 1"),
        ("-1 0.5 0.5 0.2 0.2", "its class -1 is none of 0 to 1"),
        ("1 0.5 0.5 0.2", "its box is not four numbers: 0.5 0.5 0.2"),
        ("1 0.5 0.5 0.2 0.2 0.3", "its box is not four numbers"),
        ("1 0.5 x 0.2 0.2", "its box is not four numbers: 0.5 x 0.2 0.2"),
        ("1 nan 0.5 0.2 0.2", "its box is not four finite numbers"),
        ("1 0.5 0.5 0 0.2", "its box has no area"),
        ("1 1.5 0.5 0.2 0.2", "its box (56, 8, 64, 12) lies outside of the image"),
        ("1 12 15 9 9", "its box is not in shares of the image, 0 to 1: 12 15 9 9"),
        ("0 0.5 0.5 0.5 0.5", "repeats the 'cat' of a.txt, line 1"),
    ],
)
def test_what_is_no_box_is_dropped_with_its_line(write: Write, read: Read, line: str, reason: str) -> None:
    root = write({"obj.names": "cat\ndog\n", "a.jpg": (40, 20), "b.jpg": (40, 20), "b.txt": "0 .5 .5 .5 .5\n"})
    (root / "a.txt").write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")
    found = read(root) if "nan" not in line and "x" not in line and "dog" not in line else read_as_yolo(root)
    assert [item.place for item in found.dropped] == ["a.txt, line 2"]
    assert found.dropped[0].reason.startswith(reason)
    assert len(found.images[0].boxes) == 1


def read_as_yolo(root: Path) -> Annotations:
    """Read a folder whose first text file alone would not be recognised."""
    from kinglet.data.annotations.yolo import read_yolo
    from kinglet.data.sources.folder import list_files

    return read_yolo(root, list_files(root))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (None, "no list of the classes' names"),
        ("names: cat\n", "names is neither a list of names nor numbers with names"),
        ("names: {a: cat}\n", "names is neither"),
        ("names: [cat\n", "data.yaml is no YAML"),
        ("path: .\n", "no list of the classes' names"),
    ],
)
def test_without_names_of_the_classes_nothing_is_guessed(
    write: Write, read: Read, names: str | None, words: str
) -> None:
    files: dict[str, Any] = {"a.jpg": (40, 20), "a.txt": "0 0.5 0.5 0.5 0.5\n"}
    root = write(files | ({"data.yaml": names} if names else {}))
    with pytest.raises(KingletError) as caught:
        read(root)
    assert words in caught.value.message


def test_names_may_be_numbered(write: Write, read: Read) -> None:
    root = write({"data.yaml": "names:\n  0: cat\n  1: dog\n", "a.jpg": (40, 20), "a.txt": "1 0.5 0.5 0.5 0.5\n"})
    found = read(root)
    assert (found.images[0].boxes[0].label, found.classes) == ("dog", ("cat", "dog"))


def test_a_broken_image_is_listed(write: Write, read: Read) -> None:
    files = {"data.yaml": NAMES, "a.jpg": (40, 20), "a.txt": "1 0.5 0.5 0.5 0.5\n", "b.jpg": "no image", "c.png": ""}
    found = read(write(files))
    assert [item.place for item in found.dropped] == ["b.jpg", "c.png"]
