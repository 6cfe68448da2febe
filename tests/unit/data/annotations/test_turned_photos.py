"""Photos that the camera held upright only in their EXIF tag: their boxes follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from kinglet.data.annotations import Annotations
from kinglet.data.annotations.boxes import turned
from kinglet.runtime.decoding import UndecodableImageError, read_orientation

STORED = (12, 8)
BOX = (2, 1, 5, 7)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_box_covers_what_it_covered(orientation: int) -> None:
    pixels = np.zeros((STORED[1], STORED[0]), np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    shown = np.asarray(ImageOps.exif_transpose(image))
    rows, columns = np.nonzero(shown)
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert turned(BOX, STORED, orientation) == expected


@pytest.mark.parametrize(
    ("annotated", "expected"),
    [((40, 30), (30 - 25, 10, 30 - 5, 20)), ((30, 40), (10, 5, 20, 25))],
    ids=["drawn on the photo as stored", "drawn on the photo as shown"],
)
def test_the_annotated_size_tells_on_which_photo_boxes_were_drawn(
    write: Callable[[dict[str, Any]], Path],
    read: Callable[[Path], Annotations],
    annotated: tuple[int, int],
    expected: tuple[int, ...],
) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": annotated[0], "height": annotated[1]}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [10, 5, 10, 20]}],
    }
    image = read(write({"a.json": content, "a.jpg": (40, 30, 6)})).images[0]
    assert (image.width, image.height) == (30, 40)
    assert image.boxes[0].xyxy == expected


def test_the_orientation_of_a_file(write: Callable[[dict[str, Any]], Path]) -> None:
    root = write({"a.jpg": (40, 30, 8), "b.png": (4, 3), "c.jpg": "no image"})
    assert read_orientation((root / "a.jpg").read_bytes(), 10_000) == ((40, 30), 8)
    assert read_orientation((root / "b.png").read_bytes(), 10_000) == ((4, 3), 1)
    with pytest.raises(UndecodableImageError):
        read_orientation((root / "c.jpg").read_bytes(), 10_000)
    with pytest.raises(UndecodableImageError, match="too large"):
        read_orientation((root / "a.jpg").read_bytes(), 100)
