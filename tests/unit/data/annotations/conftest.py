"""Small folders of annotated images, as people bring them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kinglet.data.annotations import Annotations, annotation_format, read_annotations
from kinglet.data.sources.folder import list_files


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write files below a folder: text, an object as JSON, or (width, height[, EXIF orientation]) as a JPEG."""

    def write_all(files: dict[str, Any]) -> Path:
        for path, content in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, tuple):
                exif = Image.Exif()
                exif[0x0112] = content[2] if len(content) > 2 else 1
                Image.new("RGB", content[:2], "gray").save(file, exif=exif)
            else:
                file.write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path

    return write_all


@pytest.fixture
def read() -> Callable[[Path], Annotations]:
    """Read the annotations of a folder whose format is found out."""

    def read_all(root: Path) -> Annotations:
        paths = list_files(root)
        found = annotation_format(root, paths)
        assert found is not None
        return read_annotations(root, paths, found.name)

    return read_all
