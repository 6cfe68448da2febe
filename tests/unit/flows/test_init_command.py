"""From somebody's folder to the parameter file to start with."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from kinglet.errors import KingletError
from tasks.first_look import parameter_file, with_setting
from tasks.parameters import load_parameters
from tests.unit.tasks.video_folder import write_videos

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, count in (("cat", 3), ("dog", 2)):
        (tmp_path / "My Photos" / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (40, 60 + number, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "My Photos" / name / f"{number}.png")
    (tmp_path / "My Photos" / "dog" / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "My Photos" / "notes").mkdir()
    (tmp_path / "My Photos" / "notes" / "a.txt").write_text("notes")
    return tmp_path / "My Photos"


def kinglet_init(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["init", *arguments])


def test_a_folder_becomes_a_parameter_file_with_all_its_comments(photos: Path, checkout: Path) -> None:
    shown = kinglet_init("My Photos", "--latency-ms", "2", "--max-accuracy-drop", "0.005")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.strip() == "params/my-photos.yaml"
    for words in ("6 of 2 classes", "cat 3, dog 3", "60-62 x 40 px", "1 could not be opened", "64 px", "40 px"):
        assert words in shown.stderr, words
    assert "kinglet run --params params/my-photos.yaml" in shown.stderr
    before, after = (path.read_text() for path in (checkout / "params.yaml", checkout / "params" / "my-photos.yaml"))
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert changed == [
        "  source: 'My Photos'",
        "  latency_ms: 2 # null: no limit",
        "  max_accuracy_drop: 0.005",
    ]
    # The gate's limits of the same names are those of select unless somebody sets them.
    assert load_parameters(checkout / "params" / "my-photos.yaml").gate.latency_ms is None


def test_settings_to_start_from_can_be_named(photos: Path, checkout: Path) -> None:
    (checkout / "params").mkdir()
    shutil.copy(ROOT / "params" / "photographs.yaml", checkout / "params")
    shown = kinglet_init("My Photos", "--settings", "params/photographs.yaml", "--size-mb", "1.5")
    assert shown.exit_code == 0, shown.output
    assert "224 px for the big network" in shown.stderr
    before, after = (checkout / "params" / f"{name}.yaml" for name in ("photographs", "my-photos"))
    changed = [line for line in after.read_text().splitlines() if line not in before.read_text().splitlines()]
    assert changed == ["  source: 'My Photos'", "  size_mb: 1.5 # null: no limit"]


def test_settings_for_another_problem_are_refused_and_nothing_is_written(photos: Path, checkout: Path) -> None:
    (checkout / "params").mkdir()
    shutil.copy(ROOT / "params" / "video.yaml", checkout / "params")
    shown = kinglet_init("My Photos", "--settings", "params/video.yaml")
    assert "params/video.yaml is for problem: video, and what is there is classification" in str(shown.exception)
    assert sorted(path.name for path in (checkout / "params").iterdir()) == ["video.yaml"]


def test_an_existing_parameter_file_is_not_lost(photos: Path, checkout: Path) -> None:
    assert kinglet_init("My Photos").exit_code == 0
    (checkout / "params" / "my-photos.yaml").write_text("mine")
    refused = kinglet_init("My Photos")
    assert isinstance(refused.exception, KingletError)
    assert "params/my-photos.yaml exists already" in refused.exception.message
    assert (checkout / "params" / "my-photos.yaml").read_text() == "mine"
    assert kinglet_init("My Photos", "--overwrite").exit_code == 0
    assert sorted(path.name for path in (checkout / "params").iterdir()) == ["my-photos.yaml"]


def test_a_tables_images_lie_beside_it_unless_it_is_said(photos: Path, checkout: Path) -> None:
    table = photos / "labels.csv"
    table.write_text("path,label,domain,split\ncat/0.png,cat,a,train\ncat/1.png,cat,b,test\ndog/0.png,dog,b,train\n")
    shown = kinglet_init(str(table))
    assert shown.exit_code == 0, shown.output
    assert "1 test, 2 train" in shown.stderr
    written = yaml.safe_load((checkout / "params" / "labels.yaml").read_text())
    assert (written["data"]["source"], written["data"]["images"]) == (str(table), str(photos))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ("image/0.png", "label/0.png"),
            "no image whose mask can be used: image/0.png: image image/0.png cannot be used",
        ),
        (
            ("walk/a.mp4", "run/b.mp4"),
            "none of the 2 videos can be used; run/b.mp4: it is no video that FFmpeg can read",
        ),
        (("walk/a.mp4", "walk/b.mp4"), "2 videos of one class"),
        (("one/a.png",), "1 images of one class"),
        ((), "is empty"),
    ],
)
def test_what_cannot_be_learned_is_said_and_nothing_written(tmp_path: Path, files: tuple[str, ...], words: str) -> None:
    (tmp_path / "set").mkdir()
    for path in files:
        (tmp_path / "set" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / path).touch()
    refused = kinglet_init("set")
    assert isinstance(refused.exception, KingletError)
    assert words in refused.exception.message
    assert not (tmp_path / "params").exists()


def test_boxes_become_a_parameter_file_for_detection(tmp_path: Path, checkout: Path) -> None:
    (checkout / "params").mkdir()
    shutil.copy(ROOT / "params" / "detection.yaml", checkout / "params")
    (tmp_path / "set").mkdir()
    Image.new("L", (64, 48)).save(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "set" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0\n1 0.9 0.5 0.4 0.5\n")
    shown = kinglet_init("set", "--latency-ms", "20")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.strip() == "params/set.yaml"
    words = " ".join(shown.stderr.split())
    assert "problem detection" in words
    assert "cat 1 (1 images), dog 1 (1 images)" in words
    assert "input size 192 px" in words
    assert "left out (1) a.txt, line 2: its box has no area" in words
    assert "cut at an edge (1) a.txt, line 3: box (44.8, 12, 70.4, 36) cut at the edge" in words
    written = load_parameters(checkout / "params" / "set.yaml")
    assert (written.problem, written.data.source, written.select.latency_ms) == ("detection", "set", 20)
    assert written.data.fit == "pad"


def test_masks_become_a_parameter_file_for_segmentation(tmp_path: Path, checkout: Path) -> None:
    (checkout / "params").mkdir()
    shutil.copy(ROOT / "params" / "segmentation.yaml", checkout / "params")
    (tmp_path / "set" / "masks").mkdir(parents=True)
    mask = Image.new("L", (64, 48))
    mask.paste(255, (0, 0, 16, 48))
    for name, of_image in (("a", mask), ("b", mask.crop((0, 0, 8, 8)))):
        Image.new("L", (64, 48)).save(tmp_path / "set" / f"{name}.png")
        of_image.save(tmp_path / "set" / "masks" / f"{name}.png")
    Image.new("L", (64, 48)).save(tmp_path / "set" / "c.png")
    shown = kinglet_init("set", "--size-mb", "3")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.strip() == "params/set.yaml"
    words = " ".join(shown.stderr.split())
    assert "problem segmentation" in words
    assert "images 1 with a mask, 1 without" in words
    assert "background 75.0% (1 images), foreground 25.0% (1 images); void 0.0%" in words
    assert "unusable (1) b.png: its mask masks/b.png has 8 x 8 pixels, its image 64 x 48" in words
    written = load_parameters(checkout / "params" / "set.yaml")
    assert (written.problem, written.data.source, written.select.size_mb) == ("segmentation", "set", 3)


def test_large_images_with_masks_are_to_be_cut_into_tiles(tmp_path: Path, checkout: Path) -> None:
    (checkout / "params").mkdir()
    shutil.copy(ROOT / "params" / "segmentation.yaml", checkout / "params")
    (tmp_path / "set").mkdir()
    mask = Image.new("L", (1400, 300))
    mask.paste(255, (0, 0, 16, 48))
    for name in ("a", "b"):
        Image.new("L", mask.size).save(tmp_path / "set" / f"{name}.png")
        mask.save(tmp_path / "set" / f"{name}_mask.png")
    shown = kinglet_init("set")
    assert shown.exit_code == 0, shown.output
    assert "input size 512 px, which large images are cut into" in " ".join(shown.stderr.split())
    assert load_parameters(checkout / "params" / "set.yaml").data.fit == "tile"


def write_sequences(folder: Path) -> None:
    """Write a sequence of four frames with two people and a car, and one of three with a person."""
    truths = {
        "train/street": "1,1,5,5,20,30,1,1,1\n1,2,30,5,20,30,1,1,1\n2,1,6,5,20,30,1,1,1\n2,3,50,20,30,20,1,2,1\n",
        "test/park": "1,1,5,5,20,30,1,1,1\n3,1,90,90,20,30,1,1,1\n",
    }
    (folder / "train").mkdir(parents=True)
    (folder / "labels.txt").write_text("person\ncar\n")
    for name, count in (("train/street", 4), ("test/park", 3)):
        for part in ("gt", "img1"):
            (folder / name / part).mkdir(parents=True)
        (folder / name / "gt" / "gt.txt").write_text(truths[name])
        (folder / name / "seqinfo.ini").write_text("[Sequence]\nframeRate=25\n")
        for number in range(1, count + 1):
            Image.new("L", (64, 48), 20 * number).save(folder / name / "img1" / f"{number:06d}.png")


def test_sequences_become_a_parameter_file_for_tracking(tmp_path: Path, checkout: Path) -> None:
    (checkout / "params").mkdir()
    shutil.copy(ROOT / "params" / "tracking.yaml", checkout / "params")
    write_sequences(tmp_path / "set")
    shown = kinglet_init("set", "--latency-ms", "30")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.strip() == "params/set.yaml"
    words = " ".join(shown.stderr.split())
    assert "problem tracking" in words
    assert "source MOTChallenge" in words
    assert "sequences 2 (test/park 3, train/street 4)" in words
    assert "frames 7, 4 of them without a box" in words
    assert "objects 4 tracks: car 1 (1 boxes), person 3 (4 boxes)" in words
    assert "split 1 test, 1 train" in words
    assert "left out (1) test/park/gt/gt.txt, frame 3, id 1" in words
    assert "cut at an edge (1) train/street/gt/gt.txt, frame 2, id 3" in words
    written = load_parameters(checkout / "params" / "set.yaml")
    assert (written.problem, written.data.source, written.select.latency_ms) == ("tracking", "set", 30)


def test_sequences_without_frames_are_refused_and_nothing_is_written(tmp_path: Path, checkout: Path) -> None:
    (checkout / "params").mkdir()
    shutil.copy(ROOT / "params" / "tracking.yaml", checkout / "params")
    write_sequences(tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "test" / "park" / "img1")
    refused = kinglet_init("set")
    assert isinstance(refused.exception, KingletError)
    assert "park holds neither a folder img1 nor a video" in refused.exception.message
    assert not (checkout / "params" / "set.yaml").exists()


def test_boxes_without_the_settings_to_start_from_are_refused(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    Image.new("L", (64, 48)).save(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "classes.txt").write_text("cat\n")
    (tmp_path / "set" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    refused = kinglet_init("set")
    assert isinstance(refused.exception, KingletError)
    assert "params/detection.yaml does not exist" in refused.exception.message
    assert not (tmp_path / "params").exists()


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("/home/me/My Photos", "my-photos"),
        ("s3://bucket/a/b", "b"),
        ("data/x/list.csv", "list"),
        ("data/x/../birds/.", "birds"),
        ("///", "images"),
    ],
)
def test_the_file_is_called_as_the_data_set(location: str, name: str) -> None:
    assert parameter_file(location).name == f"{name}.yaml"


def test_a_setting_is_found_in_its_own_section_only() -> None:
    text = "a:\n  # why\n  x: 1 # one\n\n  y: 2\nb:\n  x: 3\n"
    assert with_setting(text, "b", "x", 5.0) == "a:\n  # why\n  x: 1 # one\n\n  y: 2\nb:\n  x: 5\n"
    assert with_setting(text, "a", "x", "it's") == "a:\n  # why\n  x: 'it''s' # one\n\n  y: 2\nb:\n  x: 3\n"
    with pytest.raises(KingletError, match=r"no a\.z"):
        with_setting(text, "a", "z", 1.0)
    with pytest.raises(KingletError, match=r"no c\.x"):
        with_setting(text, "c", "x", 1.0)


def test_videos_become_a_parameter_file_for_clips(tmp_path: Path, checkout: Path) -> None:
    (checkout / "params").mkdir()
    shutil.copy(ROOT / "params" / "video.yaml", checkout / "params")
    write_videos(tmp_path / "set", per_class=2, n_frames=17)
    (tmp_path / "set" / "darker" / "words.mp4").write_text("words")
    (tmp_path / "set" / "domains.csv").write_text("path,domain\ndarker,hall\nbrighter/0.mp4,yard\n")
    shown = kinglet_init("set", "--size-mb", "3")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.strip() == "params/set.yaml"
    words = " ".join(shown.stderr.split())
    assert "problem video" in words
    assert "domains 2" in words
    assert "left out" not in words
    assert "clips 4 of 2 classes" in words
    assert "brighter 2, darker 2" in words
    assert "unusable (1) darker/words.mp4: it is no video that FFmpeg can read" in words
    assert "a clip has 16 frames" in words
    written = load_parameters(checkout / "params" / "set.yaml")
    assert (written.problem, written.data.source, written.select.size_mb) == ("video", "set", 3)


def test_a_table_of_videos_becomes_one_with_the_folder_of_its_videos(tmp_path: Path, checkout: Path) -> None:
    (checkout / "params").mkdir()
    shutil.copy(ROOT / "params" / "video.yaml", checkout / "params")
    write_videos(tmp_path / "films", per_class=1, n_frames=17)
    table = tmp_path / "films.csv"
    table.write_text("path,label,split\nbrighter/0.mp4,brighter,train\ndarker/0.mp4,darker,test\n")
    shown = kinglet_init(str(table), "--images", "films")
    assert shown.exit_code == 0, shown.output
    assert "1 test, 1 train" in shown.stderr
    written = load_parameters(checkout / "params" / "films.yaml")
    assert (written.problem, written.data.source, written.data.images) == ("video", str(table), "films")
