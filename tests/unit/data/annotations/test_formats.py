"""Which annotations a folder holds, as people's data sets lie on disks."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinglet.data.annotations.formats import annotation_format
from kinglet.data.sources.folder import list_files

VOC = "<annotation><object><name>RBC</name><bndbox><xmin>1</xmin></bndbox></object></annotation>"
BOXES = '{"images": [], "annotations": [{"bbox": [1, 2, 3, 4]}], "categories": []}'
POLYGONS = '{"images": [], "annotations": [{"segmentation": [[1, 2]]}], "categories": []}'


@pytest.mark.parametrize(
    ("files", "name", "problem"),
    [
        ({"train/a.jpg": "", "train/_annotations.coco.json": BOXES}, "COCO JSON", "detection"),
        ({"a.jpg": "", "annotations.json": POLYGONS}, "COCO JSON", "segmentation"),
        ({"JPEGImages/a.jpg": "", "Annotations/a.xml": VOC}, "Pascal VOC XML", "detection"),
        ({"images/a.jpg": "", "labels/a.txt": "0 0.5 0.5 0.25 1\n\n12 .1 0.2 1.0 0.4\n"}, "YOLO text", "detection"),
        ({"images/a.jpg": "", "labels/a.txt": "0 0.1 0.1 0.2 0.1 0.2 0.3\n"}, "YOLO text", "segmentation"),
        ({"image/0.png": "", "image/1.png": "", "label/0.png": "", "label/1.png": ""}, "masks", "segmentation"),
        ({"a/img1/000001.jpg": "", "a/gt/gt.txt": "1,1,2,3,4,5,1"}, "MOTChallenge", "tracking"),
        ({"walk/a.mp4": "", "run/b.AVI": ""}, "video files", "video"),
    ],
)
def test_known_annotations_are_named(tmp_path: Path, files: dict[str, str], name: str, problem: str) -> None:
    write(tmp_path, files)
    found = annotation_format(tmp_path, list_files(tmp_path))
    assert found is not None
    assert (found.name, found.problem, found.example in files) == (name, problem, True)


@pytest.mark.parametrize(
    "files",
    [
        {"cat/a.jpg": "", "dog/b.jpg": "", "LICENSE": "as is"},
        {"cat/a.jpg": "", "cat/a.txt": "taken 12.5 at dawn", "dog/a.jpg": ""},  # notes beside images
        {"cat/a.jpg": "", "dog/b.jpg": "", "package.json": '{"images": []}', "a.xml": "<feed/>"},
        {"masks/a.png": "", "gloves/b.png": ""},  # a class that is called masks
        {"labels/a.txt": "0 0.5 0.5 0.25 1", "cat/b.jpg": ""},  # a text that belongs to no image
        {},
    ],
)
def test_class_folders_are_not_taken_for_annotations(tmp_path: Path, files: dict[str, str]) -> None:
    write(tmp_path, files)
    assert annotation_format(tmp_path, list_files(tmp_path)) is None


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
