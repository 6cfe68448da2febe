"""Images of a folder beside the pipeline: read once, the unusable left out, divided by their content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinglet.errors import KingletError
from tasks.labelled_images import PARTS, LabelledImages, divide, open_labelled_images
from tests.unit.adoption.foreign_models import write_brightness_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    write_brightness_folder(root, n=400)
    (root / "040" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (root / "100" / "twin.png").write_bytes((root / "040" / "0000.png").read_bytes())
    (root / "040" / "copy.png").write_bytes((root / "040" / "0004.png").read_bytes())
    return root


def opened(folder: Path, tmp_path: Path, **settings: object) -> LabelledImages:
    values = {"size": 8, "channels": 3, "fit": "stretch"} | settings
    return open_labelled_images(str(folder), tmp_path / "images.npy", **values)


def test_usable_images_lie_in_one_array_and_the_others_are_named(folder, tmp_path):
    images = opened(folder, tmp_path)
    reasons = {item["path"]: item["reason"] for item in images.left_out}
    assert set(reasons) == {"040/0000.png", "040/broken.png", "100/twin.png"}
    assert "conflicting labels" in reasons["100/twin.png"]
    assert (len(images.rows), images.n_files) == (400, 403)
    for row, path in list(zip(images.rows, images.paths, strict=True))[::40]:
        np.testing.assert_array_equal(images.packed[row], np.asarray(Image.open(folder / path)))
    assert [path.split("/")[0] for path in images.paths] == list(images.labels)


def test_an_image_stays_in_its_part_whatever_is_beside_it(folder, tmp_path):
    images = opened(folder, tmp_path)
    parts = part_of_each(images)
    assert sorted(parts) == sorted(images.paths)
    assert parts["040/0004.png"] == parts["040/copy.png"]
    assert len({parts[path] for path in parts}) == len(PARTS)
    fewer = opened(folder, tmp_path, max_images=390)
    assert (len(fewer.rows) + len(fewer.left_out), fewer.n_files) == (390, 403)
    assert part_of_each(fewer).items() <= parts.items()


def part_of_each(images: LabelledImages) -> dict[str, str]:
    return {images.paths[place]: part for part, places in divide(images, 0).items() for place in places}


def test_a_test_part_that_the_images_bring_is_kept(tmp_path):
    write_brightness_folder(tmp_path / "images" / "train", n=200)
    write_brightness_folder(tmp_path / "images" / "test", n=40, seed=1)
    parts = part_of_each(opened(tmp_path / "images", tmp_path))
    assert {path.split("/")[0] for path, part in parts.items() if part == "test"} == {"test"}
    assert sum(part == "test" for part in parts.values()) == 40


def test_a_folder_without_a_usable_image_is_refused(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "b.png").write_text("no picture")
    with pytest.raises(KingletError, match=r"none of the 1 files .* is usable: unreadable"):
        opened(tmp_path / "images", tmp_path)
    with pytest.raises(KingletError, match=r"--data: .*nowhere does not exist"):
        opened(tmp_path / "nowhere", tmp_path)
