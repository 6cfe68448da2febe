"""Objects followed by a bundle, tracks scored and models compared, and the step that does so in a run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

import tasks.compare
import tasks.evaluate
import tasks.gate
import tasks.report
import tasks.robustness
import tasks.select
import tasks.track
from flows.cli import app
from kinglet.atomic import read_json, write_json
from kinglet.errors import KingletError
from kinglet.runtime.thresholds import Thresholds
from kinglet.runtime.videos import Video
from kinglet.tracking.mot_files import read_tracks, write_tracks
from kinglet.tracking.pictures import VideoWriter
from tasks import ingest
from tasks.artifacts import BOXES, FRAMES, SOURCE_FACTS
from tasks.detection_bundle import pack_detector
from tests.unit.tasks.annotated_folder import settings, write_shapes
from tests.unit.tasks.detector_project import (
    CELL,
    CLASSES,
    SMALL,
    TEACHER,
    Recipe,
    build_detector_project,
    detector,
    parameters,
    write_bundle,
)
from tests.unit.tasks.test_detection_verdicts import LENIENT
from tests.unit.tasks.test_report import Tags
from tests.unit.tracking.made_tracks import tracks, truth

N_FRAMES, SIZE = 12, 64
# Rows and columns of cells; the red one is there in the first eight frames only.
GREEN, RED = (1, 0), (2, 3)
LEAVES_AFTER = 8


def picture(number: int) -> np.ndarray:
    """Return a frame with a green square, and a red one until it leaves."""
    image = np.full((SIZE, SIZE, 3), 40, np.uint8)
    for (row, column), channel in ((GREEN, 1), (RED, 0)):
        if channel == 1 or number <= LEAVES_AFTER:
            image[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL, channel] = 250
    return image


def box_of(cell: tuple[int, int]) -> str:
    return f"{cell[1] * CELL + 1},{cell[0] * CELL + 1},{CELL},{CELL},1"


def make_bundle(folder: Path, recipe: Recipe) -> Path:
    """Pack a detector of bright cells."""
    folder.mkdir(parents=True)
    model = detector(recipe, CLASSES)
    # The least that the nodes of the suppression behind it need.
    model.opset_import[0].version = 18
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    images = np.stack([picture(1)] * 2)
    pack_detector(folder / "bundle", folder / "model.onnx", folder / "none.onnx", images, "# squares\n", Thresholds())
    return folder / "bundle"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles, a film, and the same as a sequence of images with true tracks."""
    root = tmp_path_factory.mktemp("tracks")
    make_bundle(root / "teacher", TEACHER)
    # Sure of nothing that is not much brighter, so that it finds nothing.
    make_bundle(root / "blind", Recipe("blind", "quantize", "teacher", 2.0, 0.0, 0.0, 1.0))
    sequence = root / "sequences" / "squares"
    (sequence / "img1").mkdir(parents=True)
    (sequence / "gt").mkdir()
    with VideoWriter(root / "film.mp4", 10) as video:
        for number in range(1, N_FRAMES + 1):
            video.write(picture(number), (number - 1) / 10)
            Image.fromarray(picture(number)).save(sequence / "img1" / f"{number:06d}.png")
    lines = [f"{number},1,{box_of(GREEN)},1,1" for number in range(1, N_FRAMES + 1)]
    lines += [f"{number},2,{box_of(RED)},2,1" for number in range(1, LEAVES_AFTER + 1)]
    (sequence / "gt/gt.txt").write_text("\n".join(lines) + "\n")
    (sequence / "gt/labels.txt").write_text("green\nred\n")
    (sequence / "seqinfo.ini").write_text(f"[Sequence]\nframeRate=10\nseqLength={N_FRAMES}\n")
    return root


@pytest.fixture
def here(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return workplace


def kinglet(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("source", ["film.mp4", "sequences/squares"])
def test_a_film_or_a_sequence_is_followed_written_and_drawn(here: Path, source: str) -> None:
    shown = kinglet("track", here / "teacher/bundle", here / source, "--out", "out", "--association", "sort", "--json")
    assert shown.exit_code == 0, shown.output
    result = read_json(Path("out/result.json"))
    assert [(track["class"], track["frames"], track["last"]) for track in result["tracks"]] == [
        ("green", N_FRAMES, N_FRAMES),
        ("red", LEAVES_AFTER, LEAVES_AFTER),
    ]
    assert result["video_frames_per_second"] == pytest.approx(10)
    assert result["real_time_factor"] == pytest.approx(result["frames_per_second"] / 10, rel=0.01)
    found = read_tracks(Path("out/tracks.txt"))
    assert found.labels[found.ids == 1].tolist() == [1] * N_FRAMES
    assert Path("out/labels.txt").read_text() == "green\nred\n"
    assert len(Video(Path("out/tracks.mp4"))) == N_FRAMES
    with Image.open("out/strip.png") as strip:
        assert strip.height == 240
    assert "2 tracks with 20 boxes in 12 frames." in shown.output


def test_a_folder_without_a_rate_has_no_real_time_factor(here: Path) -> None:
    frames = here / "sequences/squares/img1"
    shown = kinglet("track", here / "teacher/bundle", frames)
    assert shown.exit_code == 0, shown.output
    assert read_json(Path("tracks/img1/result.json"))["real_time_factor"] is None
    assert kinglet("track", here / "teacher/bundle", frames, "--rate", "30").exit_code == 0
    assert read_json(Path("tracks/img1/result.json"))["video_frames_per_second"] == 30


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.mp4"], "none.mp4 does not exist"),
        (["film.mp4", "--rate", "5"], "--rate is for folders of frames"),
        (["film.mp4", "--association", "magic"], "--association magic: unknown; known: bytetrack, sort"),
    ],
)
def test_what_cannot_be_followed_is_told_and_nothing_is_left(here: Path, arguments: list[str], told: str) -> None:
    source, *options = arguments
    with pytest.raises(KingletError, match=told):
        CliRunner().invoke(
            app, ["track", str(here / "teacher/bundle"), str(here / source), "--out", "out", *options],
            catch_exceptions=False,
        )  # fmt: skip
    assert list(Path().iterdir()) == []


def test_a_broken_frame_leaves_no_half_result_and_other_files_stay(here: Path) -> None:
    Path("frames").mkdir()
    for number in (1, 2):
        Image.fromarray(picture(number)).save(f"frames/{number}.png")
    Path("frames/2.png").write_bytes(Path("frames/2.png").read_bytes()[:50])
    done = kinglet("track", here / "teacher/bundle", "frames", "--out", "out")
    assert isinstance(done.exception, KingletError)
    assert sorted(path.name for path in Path().iterdir()) == ["frames"]
    Path("out").mkdir()
    Path("out/mine.txt").write_text("keep")
    done = kinglet("track", here / "teacher/bundle", here / "film.mp4", "--out", "out")
    assert "holds files that `kinglet track` did not write" in str(done.exception)
    assert Path("out/mine.txt").read_text() == "keep"


def test_a_folder_that_holds_what_is_followed_is_not_replaced(here: Path) -> None:
    Path("mine").mkdir()
    shutil.copy(here / "film.mp4", "mine/film.mp4")
    for out in ("mine", "."):
        done = kinglet("track", here / "teacher/bundle", "mine/film.mp4", "--out", out, "--overwrite")
        assert "lies in it, and the folder is replaced as a whole" in str(done.exception)
    assert Path("mine/film.mp4").is_file()


def test_tracks_are_scored_file_by_file_and_folder_by_folder(here: Path) -> None:
    write_tracks(Path("truth.txt"), truth())
    write_tracks(Path("found.txt"), tracks())
    shown = kinglet("tracks", "score", "truth.txt", "found.txt", "--json")
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.stdout)
    assert document["sequences"]["found"]["mota"] == 0.7
    assert document["all"]["intervals"]["mota"] is None
    assert "there are too few frames" in shown.stderr
    for name in ("a", "b"):
        Path(f"truth/{name}/gt").mkdir(parents=True)
        write_tracks(Path(f"truth/{name}/gt/gt.txt"), truth())
    write_tracks(Path("found/a.txt"), tracks())
    done = kinglet("tracks", "score", "truth", "found")
    assert str(done.exception) == "found has no tracks of b."
    write_tracks(Path("found/b.txt"), truth())
    both = json.loads(kinglet("tracks", "score", "truth", "found", "--json").stdout)
    assert both["all"]["mota"] == pytest.approx(0.85)


def test_classes_are_compared_by_their_names_where_both_files_have_them(here: Path) -> None:
    for folder, names, number in (("truth/gt", "dog\ncat\n", 2), ("found", "cat\ndog\n", 1)):
        Path(folder).mkdir(parents=True)
        Path(folder, "labels.txt").write_text(names)
        Path(folder, "gt.txt").write_text(f"1,1,1,1,5,5,1,{number},1\n")
    document = json.loads(kinglet("tracks", "score", "truth/gt/gt.txt", "found/gt.txt", "--json").stdout)
    assert document["all"]["mota"] == 1.0
    Path("found/labels.txt").write_text("dog\ncat\n")
    document = json.loads(kinglet("tracks", "score", "truth/gt/gt.txt", "found/gt.txt", "--json").stdout)
    assert document["all"]["mota"] == -1.0


def test_two_models_are_compared_on_the_same_sequences(here: Path) -> None:
    bundles = here / "teacher/bundle", here / "blind/bundle"
    shown = kinglet("tracks", "compare", *bundles, here / "sequences", "--association", "sort", "--json")
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.stdout)
    teacher, blind = (scores["all"] for scores in document["scores"])
    assert (teacher["mota"], teacher["idf1"], teacher["misses"]) == (1.0, 1.0, 0)
    assert (blind["mota"], blind["misses"]) == (0.0, N_FRAMES + LEAVES_AFTER)
    assert document["difference"]["values"]["mota"] == -1.0


def test_true_tracks_of_classes_that_the_model_does_not_know_are_refused(here: Path) -> None:
    Path("other/gt").mkdir(parents=True)
    Path("other/gt/gt.txt").write_text("1,1,1,1,5,5,1,1,1\n")
    Path("other/gt/labels.txt").write_text("ship\n")
    Path("other/img1").mkdir()
    Image.fromarray(picture(1)).save("other/img1/1.png")
    done = kinglet("tracks", "compare", here / "teacher/bundle", here / "blind/bundle", "other")
    assert "finds green, red, and the true tracks are of ship" in str(done.exception)


def sequences_project(root: Path) -> None:
    """Write a project of squares in which every image is a frame of one of three sequences of its part."""
    build_detector_project(root, recipes=(TEACHER, SMALL))
    boxes = pd.read_parquet(root / BOXES)
    boxes["identity"] = boxes.groupby("index").cumcount()
    boxes.to_parquet(root / BOXES, index=False)
    rows = np.arange(60)
    frames = pd.DataFrame({"index": rows, "sequence": [f"part/{row % 9}" for row in rows], "frame": rows // 9 + 1})
    frames.assign(seconds=(frames["frame"] - 1) / 10).to_parquet(root / FRAMES, index=False)
    facts = {f"part/{number}": {"frames": 7, "rate": 10.0, "is_even": True} for number in range(9)}
    write_json(root / SOURCE_FACTS, {**read_json(root / SOURCE_FACTS), "sequences": facts})
    checks = read_json(root / "artifacts/check_data/checks.json")
    write_json(root / "artifacts/check_data/checks.json", {**checks, "n_critical": 0})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    sequences_project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        chosen = parameters(gate=LENIENT, track={"association": "sort", "min_frames": 1})
        given = chosen.model_copy(update={"problem": "tracking"})
        for step in (tasks.evaluate, tasks.compare, tasks.select, tasks.robustness, tasks.track):
            step.run(given)
        write_bundle(root, SMALL)
        tasks.gate.run(given)
        tasks.report.run(given)
    return root


def test_the_step_scores_the_teacher_and_the_chosen_model_on_the_test_sequences(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    scores = read_json(Path("artifacts/track/scores.json"))
    assert (scores["teacher"], scores["chosen"]) == (TEACHER.name, SMALL.name)
    assert sorted(scores["files"]) == ["part/2", "part/5", "part/8"]
    results = Path("artifacts/track/results")
    for name in (TEACHER.name, SMALL.name):
        own = scores["models"][name]
        assert own["all"]["objects"] == sum(row["objects"] for row in own["sequences"].values())
        written = sum(len(read_tracks(results / files["tracks"][name])) for files in scores["files"].values())
        found = sum(row["objects"] - row["misses"] + row["false_positives"] for row in own["sequences"].values())
        assert written == found > 0
    difference = scores["difference"]["values"]["mota"]
    assert difference == pytest.approx(
        scores["models"][SMALL.name]["all"]["mota"] - scores["models"][TEACHER.name]["all"]["mota"], abs=2e-6
    )
    video = Video(results / scores["files"]["part/2"]["video"])
    # The letterbox is 32 pixels high without its borders.
    assert (len(video), video.frame(1).image.shape) == (7, (32, 64, 3))


def test_the_page_has_a_chapter_on_the_tracks_with_links_to_files_that_exist(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    page, tags = Path("artifacts/report/report.html").read_text(), Tags()
    tags.feed(page)
    assert tags.open == []
    chapter = page[page.index('<section id="tracking"') : page.index('<section id="data"')]
    assert chapter.count("data:image/jpeg;base64,") == 3
    links = re.findall(r'href="(\.\./[^"]+)"', chapter)
    assert len(links) == 3 * 3
    assert all((Path("artifacts/report") / link).is_file() for link in links)


def test_runs_of_other_problems_follow_nothing_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tasks.track.run(parameters())
    assert read_json(Path("artifacts/track/scores.json"))["reason"].startswith("problem is detection: ")
    assert [file.name for file in Path("artifacts/track/results").iterdir()] == ["README.txt"]


def test_sequences_are_packed_with_their_identities_and_frames(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    given = settings(data={"source": "sequences", "images": "sequences"}).model_copy(update={"problem": "tracking"})
    ingest.run(given)
    frames, boxes = pd.read_parquet(FRAMES), pd.read_parquet(BOXES)
    assert frames["frame"].tolist() == list(range(1, N_FRAMES + 1))
    assert set(frames["sequence"]) == {"squares"}
    assert boxes.groupby("identity").size().tolist() == [N_FRAMES, LEAVES_AFTER]
    assert read_json(SOURCE_FACTS)["sequences"] == {"squares": {"frames": N_FRAMES, "rate": 10.0, "is_even": True}}
    assert set(pd.read_parquet("artifacts/ingest/manifest.parquet")["group"]) == {"squares"}


def test_images_with_boxes_are_no_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_shapes(tmp_path / "shapes")
    with pytest.raises(KingletError, match=r"holds images with boxes \(Pascal VOC XML\), and no sequences"):
        ingest.run(settings().model_copy(update={"problem": "tracking"}))
