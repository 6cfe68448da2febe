"""ingest, profile, check_data, split and plan on a small folder of videos: what comes out, what a user is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kinglet.errors import KingletError
from kinglet.runtime.preprocessing import resize
from kinglet.runtime.videos import Video
from tasks import ingest, profile, split
from tests.unit.tasks.video_folder import HEIGHT, WIDTH, run_all, settings, write_changing, write_videos
from tests.unit.tracking.made_videos import damage_packet, turn_clockwise, write_sound, write_video


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten videos of two classes in `videos`, below the current folder."""
    monkeypatch.chdir(tmp_path)
    return write_videos(tmp_path / "videos")


def manifest() -> pd.DataFrame:
    return pd.read_parquet("artifacts/ingest/manifest.parquet").set_index("path")


def content_of(path: str) -> Any:
    return json.loads(Path("artifacts", path).read_text())


def clips() -> np.ndarray:
    return np.load("artifacts/ingest/clips_32.npy")


def test_clips_are_packed_with_their_middle_frames_and_times(videos: Path) -> None:
    ingest.run(settings())
    rows, table = manifest(), pd.read_parquet("artifacts/ingest/clips.parquet")
    packed, middles = clips(), np.load("artifacts/ingest/images_32.npy")
    assert packed.shape == (10, 4, 32, 32, 3)
    assert (packed[:, 2] == middles).all()
    assert (rows["format"].unique(), rows["frames"].unique(), rows["mode"].unique()) == (["MP4"], [4], ["RGB"])
    assert rows.loc["darker/3.mp4", ["label", "group"]].tolist() == ["darker", "darker/3.mp4"]
    assert table["index"].tolist() == rows["index"].tolist()
    of_clip = table.set_index("video").loc["brighter/1.mp4"]
    assert (of_clip["width"], of_clip["height"]) == (WIDTH, HEIGHT)
    assert of_clip["frame_numbers"].tolist() == [1, 2, 3, 4]
    assert of_clip["seconds"].tolist() == [0, 0.1, 0.2, 0.3]
    video = Video(videos / "brighter" / "1.mp4")
    for place, number in enumerate(of_clip["frame_numbers"]):
        wanted = resize(video.frame(int(number)).image, 32, "stretch")
        assert (packed[rows.loc["brighter/1.mp4", "index"], place] == wanted).all()
    assert content_of("ingest/source.json")["clips"] == {
        "frames": 4,
        "frames_per_second": 10,
        "per_video": 1,
        "videos": 10,
        "video_seconds": [0.4, 0.4, 0.4],
    }


def test_clips_go_through_and_what_is_no_clip_is_quarantined_with_its_reason(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = videos / "darker"
    (bad / "a-notes.txt").write_text("notes")
    (bad / "b-words.mp4").write_text("no video at all")
    (bad / "c-empty.mp4").touch()
    write_sound(bad / "d-sound.mp4")
    write_changing(bad / "e-short.mp4", "darker", 7, n_frames=3)
    write_changing(bad / "f-single.mp4", "darker", 8, n_frames=1)
    whole = write_changing(bad / "g-cut.mp4", "darker", 9).read_bytes()
    (bad / "g-cut.mp4").write_bytes(whole[: len(whole) // 2])
    # The frames before and after it are shown with the help of the one that is damaged.
    damage_packet(write_video(bad / "h-broken.mp4", [100 * number for number in range(5)]), 2)
    shutil.copy(videos / "brighter" / "0.mp4", bad / "i-copy.mp4")
    (videos / "nothing").mkdir()
    run_all(settings(check={"max_conflicting": 0.5}))
    reasons = pd.read_csv("artifacts/check_data/quarantine.csv").set_index("path")["reason"].to_dict()
    conflict = "conflicting labels: brighter/0.mp4 (brighter), darker/i-copy.mp4 (darker)"
    wanted = {
        "brighter/0.mp4": conflict,
        "darker/a-notes.txt": "unreadable: not a video",
        "darker/b-words.mp4": "unreadable: it is no video that FFmpeg can read: Invalid data",
        "darker/c-empty.mp4": "unreadable: it is no video that FFmpeg can read: Invalid data",
        "darker/d-sound.mp4": "unreadable: it holds no video, only audio",
        "darker/e-short.mp4": "unreadable: shorter than a clip: it has 3 frames in 0.20 s, and a clip takes 0.30 s",
        "darker/f-single.mp4": "unreadable: shorter than a clip: it has 1 frame in 0.00 s, and a clip takes 0.30 s",
        "darker/g-cut.mp4": "unreadable: it is no video that FFmpeg can read: Invalid data",
        "darker/h-broken.mp4": "unreadable: frame 2 of 5, at 0.10 s, cannot be decoded",
        "darker/i-copy.mp4": conflict,
    }
    assert set(reasons) == set(wanted)
    for path, words in wanted.items():
        assert reasons[path].startswith(words), reasons[path]
    said = capsys.readouterr().err
    assert "note: top-level folders without a video, not taken for classes: nothing" in said
    assert "note: a clip has 4 frames, 10 a second, 0.30 s from first to last, and one is cut from a video." in said
    assert "19 files cannot be read as clips and are left out (" in said
    assert "2 clips have the same pixels as one of another class" in said
    assert "ingest: 100 % (19 of 19) clips" in said
    assert "profile: 100 % (19 of 19) middle frames" in said
    assert " test clips can prove that a model is at most" in said
    rows = pd.read_parquet("artifacts/split/manifest.parquet")
    assert sorted(rows["path"]) == sorted(f"{name}/{n}.mp4" for name in ("brighter", "darker") for n in range(5))[1:]
    assert content_of("split/classes.json") == ["brighter", "darker"]
    assert content_of("plan/plan.json")["test_images"] == (rows["split"] == "test").sum()
    assert not clips()[manifest().loc["darker/h-broken.mp4", "index"]].any()


def test_several_clips_of_a_video_have_numbers_and_stay_together(videos: Path) -> None:
    write_changing(videos / "darker" / "long.mp4", "darker", 50, n_frames=13)
    run_all(settings(clips={"frames": 4, "per_video": 3}))
    rows = pd.read_parquet("artifacts/split/manifest.parquet").set_index("path")
    of_long = rows[rows["group"] == "darker/long.mp4"]
    assert of_long.index.tolist() == [f"darker/long.mp4#{number}" for number in (1, 2, 3)]
    assert of_long["split"].nunique() == 1
    table = pd.read_parquet("artifacts/ingest/clips.parquet")
    numbers = table.loc[table["video"] == "darker/long.mp4", "frame_numbers"].tolist()
    assert [found.tolist() for found in numbers] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]


def test_a_target_domain_of_videos_is_set_apart_by_recording(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5, 14):
        for seed, label in enumerate(("brighter", "darker")):
            write_changing(videos / label / "yard" / f"{number}.mp4", label, 300 * seed + number, n_frames=13)
    lines = [f"{label}/yard,yard" for label in ("brighter", "darker")]
    (videos / "domains.csv").write_text("\n".join(["path,domain", *lines]) + "\n")
    given = settings(clips={"frames": 4, "per_video": 3}, adapt={"models": ["teacher"], "target": "yard"})
    run_all(given)
    rows = pd.read_parquet("artifacts/split/manifest.parquet")
    of_yard = rows["path"].str.contains("/yard/")
    assert (rows["domain"] == np.where(of_yard, "yard", "")).all()
    assert (rows["split"].isin(["adaptation", "target_test"]) == of_yard).all()
    assert rows[of_yard].groupby("group")["split"].nunique().eq(1).all()
    assert rows[of_yard]["group"].nunique() == 18
    assert "domains.csv" not in capsys.readouterr().err
    elsewhere = given.adapt.model_copy(update={"target": "roof"})
    with pytest.raises(KingletError, match=r"is 'roof', and no clip is of that domain; known domains: yard\."):
        split.run(given.model_copy(update={"adapt": elsewhere}))
    with pytest.raises(KingletError, match=r"The domain 'yard' has 3 clips to adapt to and 0 to judge that; 16 and 20"):
        split.refuse_small_target("yard", np.array(["adaptation"] * 3, object), "clips")


def test_a_table_cuts_clips_out_of_the_parts_it_names(videos: Path) -> None:
    write_changing(videos / "long.mp4", "brighter", 50, n_frames=20)
    lines = [f"{name}/{number}.mp4,{name},," for name in ("brighter", "darker") for number in range(5)]
    lines += ["long.mp4,darker,0.3,0.75", "long.mp4,brighter,1,", "long.mp4,brighter,0.8,0.95"]
    Path("table.csv").write_text("\n".join(["path,label,start,end", *lines]) + "\n")
    ingest.run(settings(data={"source": "table.csv"}))
    rows, table = manifest(), pd.read_parquet("artifacts/ingest/clips.parquet")
    numbers = table.loc[table["video"] == "long.mp4", "frame_numbers"].tolist()
    assert [found.tolist() for found in numbers] == [[4, 5, 6, 7], [], [14, 15, 16, 17]]
    assert rows.loc["long.mp4#1", "label"] == "darker"
    assert rows.loc["long.mp4#2", "problem"] == (
        "shorter than a clip: its part from 0.8 s on has 2 frames in 0.10 s, and a clip takes 0.30 s "
        "(4 frames, 10 a second)"
    )


def test_a_turned_video_is_packed_upright_and_a_variable_rate_by_its_times(videos: Path) -> None:
    turn_clockwise(write_video(videos / "darker" / "turned.mp4", [100 * number for number in range(4)]))
    write_video(videos / "darker" / "uneven.mp4", [0, 40, 100, 160, 300])
    ingest.run(settings())
    rows = manifest()
    assert rows.loc["darker/turned.mp4", ["width", "height"]].tolist() == [48, 64]
    # The red corner at the upper left of the stored frame is at the upper right of the frame as shown.
    corner = clips()[rows.loc["darker/turned.mp4", "index"], 0, 1, -2]
    assert corner[0] > 150
    assert corner[1] < 60
    table = pd.read_parquet("artifacts/ingest/clips.parquet").set_index("video")
    assert table.loc["darker/uneven.mp4", "frame_numbers"].tolist() == [1, 3, 4, 5]


def test_a_folder_without_a_video_that_can_be_used_is_refused_with_the_first_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for label in ("brighter", "darker"):
        (tmp_path / "videos" / label).mkdir(parents=True)
        (tmp_path / "videos" / label / "0.mp4").write_text("words")
    with pytest.raises(KingletError, match=r"none of the 2 videos can be used; brighter/0\.mp4: it is no video"):
        ingest.run(settings())
    assert not Path("artifacts/ingest/manifest.parquet").exists()


def test_too_many_bad_videos_end_the_run_with_their_names(videos: Path) -> None:
    for number in range(3):
        (videos / "darker" / f"bad{number}.mp4").write_text("words")
    with pytest.raises(KingletError, match=r"darker/bad0\.mp4.*is no video that FFmpeg can read"):
        run_all(settings(check={"max_unreadable": 0.1}))


def test_gray_videos_are_packed_with_one_channel(videos: Path) -> None:
    shutil.rmtree(videos)
    for label in ("brighter", "darker"):
        for number in range(3):
            write_gray(videos / label / f"{number}.mp4", 30 * number + (10 if label == "darker" else 0))
    ingest.run(settings())
    assert clips().shape == (6, 4, 32, 32, 1)
    assert np.load("artifacts/ingest/images_32.npy").shape == (6, 32, 32, 1)
    assert content_of("ingest/source.json")["channels"] == 1


def write_gray(file: Path, level: int) -> None:
    from kinglet.tracking.pictures import VideoWriter

    file.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(file, 10) as video:
        for number in range(4):
            image = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
            image[:, 4 * number : 4 * number + 8] = 200
            video.write(image, number / 10)


def test_decisions_about_clips_are_followed(videos: Path) -> None:
    Path("decided.csv").write_text(
        "path,label,new_label,confidence,decision\n"
        "darker/1.mp4,darker,brighter,0.9,relabel\n"
        "darker/2.mp4,darker,,,drop\n"
    )
    ingest.run(settings(data={"label_corrections": "decided.csv"}))
    rows = manifest()
    assert rows.loc["darker/1.mp4", "label"] == "brighter"
    assert "darker/2.mp4" not in rows.index


def test_a_set_that_says_that_it_is_made_is_told_apart(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingest.run(settings())
    assert "are made" not in capsys.readouterr().err
    assert "generated" not in content_of("ingest/source.json")
    (videos / "generated.json").write_text('{"made_by": "kinglet clips generate", "seed": 3}')
    ingest.run(settings())
    assert content_of("ingest/source.json")["generated"] == {"made_by": "kinglet clips generate", "seed": 3}
    assert content_of("ingest/source.json")["left_out"] == {}
    assert "note: the videos in videos are made, by `kinglet clips generate`" in capsys.readouterr().err
    (videos / "generated.json").write_text("[]")
    with pytest.raises(KingletError, match=r"generated\.json does not say what made these videos"):
        ingest.run(settings())


def test_a_profile_of_clips_measures_motion_and_finds_copies(videos: Path) -> None:
    shutil.copy(videos / "darker" / "0.mp4", videos / "darker" / "again.mp4")
    ingest.run(settings())
    profile.run(settings())
    images = pd.read_parquet("artifacts/profile/images.parquet").set_index("path")
    assert images["motion"].between(0.03, 0.12).all()
    # A step of 20 of 255 from frame to frame.
    assert images["motion"].median() == pytest.approx(20 / 255, abs=0.01)
    alike = images[images["near_group"] == images.loc["darker/0.mp4", "near_group"]]
    assert sorted(alike.index) == ["darker/0.mp4", "darker/again.mp4"]
    assert content_of("profile/dataset.json")["clips"]["frames"] == 4


def test_recordings_on_both_sides_of_a_split_that_a_set_brings_are_told(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, part in enumerate(["train", "train", "val", "test", "train"]):
        for label in ("brighter", "darker"):
            recording = 1 if part == "test" and label == "darker" else number
            target = videos.parent / "split" / part / label / f"v_{label}_g{recording:02d}_c{number:02d}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            (videos / label / f"{number}.mp4").rename(target)
    run_all(settings(data={"source": "split", "images": "split"}))
    assert (
        "warning: 2 clips are cut from a recording that is also in another part of the split the set brings "
        "(test/darker/v_darker_g01_c03.mp4, train/darker/v_darker_g01_c01.mp4)."
    ) in capsys.readouterr().err
    rows = pd.read_parquet("artifacts/split/manifest.parquet")
    assert (rows["split"] == rows["path"].str.split("/").str[0].replace("val", "validation")).sum() >= 9
