"""Made videos: the same request gives the same files, each of its own picture, in a folder that says what it is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from kinglet.data.clips.moving_pictures import CLASSES
from kinglet.errors import KingletError
from kinglet.runtime.videos import Video


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve small pictures and a broken one in `pictures`, below the current folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    for number in range(12):
        pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / "deep" / f"{number}.png")
    (tmp_path / "pictures" / "broken.png").write_text("words")
    return tmp_path / "pictures"


def generate(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["clips", "generate", *arguments])


def sums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_request_gives_the_same_videos(tmp_path: Path) -> None:
    shown = generate("pictures", "made", "--per-class", "1", "--size", "32")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.strip() == "made"
    assert "9 videos of 9 classes" in shown.stderr
    assert "note: broken.png is left out: not an image" in shown.stderr
    found = sums(tmp_path / "made")
    assert sorted(found) == sorted(["generated.json", *(f"{label}/0.mp4" for label in CLASSES)])
    assert len(set(found.values())) == len(found)
    said = json.loads((tmp_path / "made" / "generated.json").read_text())
    assert (said["made_by"], said["videos"], said["size"]) == ("kinglet clips generate", 9, 32)
    video = Video(tmp_path / "made" / "left-fast" / "0.mp4")
    assert 16 <= len(video) <= 24
    assert video.frame(1).image.shape == (32, 32, 3)
    assert video.rate == pytest.approx(12, abs=0.02)
    # An earlier result is replaced, and by the same bytes.
    assert generate("pictures", "made", "--per-class", "1", "--size", "32").exit_code == 0
    assert sums(tmp_path / "made") == found
    assert generate("pictures", "other", "--per-class", "1", "--size", "32", "--seed", "1").exit_code == 0
    assert not set(sums(tmp_path / "other").values()) & set(found.values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pictures", "made", "--per-class", "2"), "pictures has 12 pictures that can be read, and 18 videos need one"),
        (("nowhere", "made"), "IMAGES: nowhere does not exist"),
        (("pictures", "pictures"), "lies in it, and the folder is replaced as a whole"),
    ],
)
def test_what_cannot_be_made_is_said_and_nothing_written(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    before = sums(tmp_path)
    refused = generate(*arguments, "--size", "32")
    assert isinstance(refused.exception, KingletError)
    assert words in refused.exception.message
    assert sums(tmp_path) == before


def test_a_folder_with_other_files_is_kept_unless_it_may_go(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "thesis.txt").write_text("years of work")
    refused = generate("pictures", "made", "--per-class", "1", "--size", "32")
    assert isinstance(refused.exception, KingletError)
    assert "holds files that `kinglet clips generate` did not write" in refused.exception.message
    assert (tmp_path / "made" / "thesis.txt").exists()
    assert generate("pictures", "made", "--per-class", "1", "--size", "32", "--overwrite").exit_code == 0
    assert not (tmp_path / "made" / "thesis.txt").exists()
