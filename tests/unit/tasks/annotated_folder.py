"""A small data set for detection as people bring it: noise with rectangles on it, in Pascal VOC's format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.parameters import Parameters

# (class, left, top, right, bottom), counted from 1, the last pixel included, as VOC does; words where they are wrong.
Object = tuple[str, object, object, object, object]
SQUARES: list[tuple[str, int, int, int, int]] = [("square", 5, 5, 24, 24), ("bar", 30, 10, 59, 19)]


def settings(**sections: dict[str, Any]) -> Parameters:
    """Return parameters for the folder `shapes`, with changes by section."""
    values: dict[str, Any] = {
        "problem": "detection",
        "data": {"source": "shapes", "images": "shapes", "fit": "pad"},
        "check": {"min_images_per_class": 3, "max_dropped_annotations": 0.5, "tiny_box_pixels": 2},
        "finetune": {"backbone": "efficientnet-lite0", "input_size": 64, "low_resolution_share": 0},
        "crossvalidate": {"folds": []},
        "domains": {"most": 0},
    }
    for section, changes in sections.items():
        values[section] = {**values.get(section, {}), **changes}
    return Parameters.model_validate(values)


def write_image(file: Path, seed: int, size: tuple[int, int] = (80, 60), orientation: int = 1) -> None:
    """Write a JPEG of this width and height as stored; orientation: its EXIF tag."""
    file.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    coarse.resize(size, Image.Resampling.BICUBIC).save(file, quality=95, exif=exif)


def write_objects(file: Path, objects: Sequence[Object], size: tuple[int, int] = (80, 60)) -> None:
    """Write the VOC file of an image in the folder beside it."""
    found = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax>"
        f"<ymax>{bottom}</ymax></bndbox></object>"
        for label, left, top, right, bottom in objects
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f"<annotation><filename>{file.stem}.jpg</filename><size><width>{size[0]}</width><height>{size[1]}</height>"
        f"</size>{found}</annotation>"
    )


def write_shapes(root: Path, n_images: int = 12) -> Path:
    """Write images with a square and a bar each, images/NN.jpg and labels/NN.xml; return the folder."""
    for number in range(n_images):
        write_image(root / "images" / f"{number:02}.jpg", number)
        write_objects(root / "labels" / f"{number:02}.xml", SQUARES)
    return root


def as_coco(root: Path) -> None:
    """Write the annotations of `write_shapes` once more as COCO JSON, and remove the VOC files."""
    files = sorted((root / "labels").glob("*.xml"))
    boxes = [
        (label, left - 1, top - 1, right - left + 1, bottom - top + 1) for label, left, top, right, bottom in SQUARES
    ]
    content = {
        "images": [{"id": number, "file_name": f"{file.stem}.jpg"} for number, file in enumerate(files)],
        "categories": [{"id": 7, "name": "square"}, {"id": 9, "name": "bar"}],
        "annotations": [
            {"id": 2 * number + place, "image_id": number, "category_id": 7 + 2 * place, "bbox": list(xywh)}
            for number in range(len(files))
            for place, (_, *xywh) in enumerate(boxes)
        ],
    }
    shutil.rmtree(root / "labels")
    (root / "instances.json").write_text(json.dumps(content))


def as_yolo(root: Path) -> None:
    """Write the annotations of `write_shapes` once more as YOLO text, and remove the VOC files."""
    lines = []
    for number, (_, left, top, right, bottom) in enumerate(SQUARES):
        width, height = right - left + 1, bottom - top + 1
        shares = ((left - 1 + width / 2) / 80, (top - 1 + height / 2) / 60, width / 80, height / 60)
        lines.append(f"{number} {' '.join(map(str, shares))}")
    for file in sorted((root / "labels").glob("*.xml")):
        file.with_suffix(".txt").write_text("\n".join(lines))
        file.unlink()
    (root / "data.yaml").write_text("names: [square, bar]\n")
