"""Folders and tables of videos: which are read, what they are called, which stay together, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinglet.data.clips.video_files import WITHOUT_VIDEO, find_videos
from kinglet.data.sources.layout import NOT_IN_A_CLASS
from kinglet.errors import KingletError


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def table(root: Path, *lines: str) -> Path:
    path = root / "videos.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_folder_per_class_is_read_with_everything_in_it(tmp_path: Path) -> None:
    touch(tmp_path, "run/b.AVI", "run/notes.txt", "walk/a.mp4", "lists/train.txt", "readme.md", "mark.json")
    (tmp_path / "jump").mkdir()
    found = find_videos(str(tmp_path), "", aside=["mark.json"])
    assert [(part.record.path, part.record.label, part.record.group) for part in found.parts] == [
        ("run/b.AVI", "run", "run/b.AVI"),
        ("run/notes.txt", "run", "run/notes.txt"),
        ("walk/a.mp4", "walk", "walk/a.mp4"),
    ]
    assert found.left_out == {WITHOUT_VIDEO: ["jump", "lists"], NOT_IN_A_CLASS: ["readme.md"]}


def test_train_and_test_folders_are_a_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/run/a.mp4", "train/walk/b.mp4", "val/run/c.mp4", "test/walk/d.mp4")
    parts = find_videos(str(tmp_path), "").parts
    assert {part.record.path: (part.record.label, part.record.given_split) for part in parts} == {
        "train/run/a.mp4": ("run", "train"),
        "train/walk/b.mp4": ("walk", "train"),
        "val/run/c.mp4": ("run", "validation"),
        "test/walk/d.mp4": ("walk", "test"),
    }


def test_a_file_in_the_folder_names_the_domains_of_videos_and_is_none_itself(tmp_path: Path) -> None:
    touch(tmp_path, "train/run/a.mp4", "train/walk/hall/b.mp4", "test/run/hall/c.mp4", "test/walk/d.mp4")
    names = tmp_path / "domains.csv"
    names.write_text("path,domain\ntrain/run/a.mp4,yard\ntrain/walk/hall,hall\ntest/run,yard\ntest/run/hall,hall\n")
    found = find_videos(str(tmp_path), "")
    assert found.left_out == {}
    assert {part.record.path: part.record.domain for part in found.parts} == {
        "train/run/a.mp4": "yard",
        "train/walk/hall/b.mp4": "hall",
        "test/run/hall/c.mp4": "hall",
        "test/walk/d.mp4": "",
    }
    names.write_text("path,domain\ntrain/run/e.mp4,yard\n")
    with pytest.raises(KingletError, match=r"domains\.csv, line 2: train/run/e\.mp4 is not in "):
        find_videos(str(tmp_path), "")


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("v_ApplyEyeMakeup_g01_c02.avi", "v_ApplyEyeMakeup_g01"),
        ("Faith_Rewarded_catch_f_cm_np1_ri_med_0.avi", "Faith_Rewarded_catch"),
        ("person07_boxing_d3_uncomp.avi", "person07"),
        ("holiday_g01.mp4", "act/holiday_g01.mp4"),
    ],
)
def test_videos_cut_from_one_recording_stay_together(tmp_path: Path, name: str, group: str) -> None:
    touch(tmp_path, f"act/{name}", "other/x.mp4")
    assert find_videos(str(tmp_path), "").parts[0].record.group == group


@pytest.mark.parametrize(
    ("paths", "words"),
    [(["a.mp4", "b.mp4"], "holds 2 videos but no folder of a class"), (["run/a.txt"], "holds no videos")],
)
def test_a_folder_without_videos_of_a_class_is_refused(tmp_path: Path, paths: list[str], words: str) -> None:
    touch(tmp_path, *paths)
    with pytest.raises(KingletError, match=words):
        find_videos(str(tmp_path), "")


def test_a_table_names_parts_of_videos_and_groups(tmp_path: Path) -> None:
    touch(tmp_path, "films/a.mp4", "films/b.mp4")
    path = table(
        tmp_path,
        "path,label,start,end,group,split,camera",
        "a.mp4,walk,2.5,4,,,left",
        "a.mp4,run,0,2.5,,,left",
        "b.mp4,run,,,tuesday,val,right",
        "b.mp4,run,,,tuesday,val,right",
    )
    found = find_videos(str(path), str(tmp_path / "films"))
    assert [(p.record.path, p.record.label, p.start, p.end, p.record.group) for p in found.parts] == [
        ("a.mp4", "run", 0, 2.5, "a.mp4"),
        ("a.mp4", "walk", 2.5, 4, "a.mp4"),
        ("b.mp4", "run", 0, None, "tuesday"),
    ]
    assert found.parts[2].record.given_split == "validation"
    assert found.parts[2].record.further == (("camera", "right"),)
    assert found.notes == [f"{path}: 1 rows repeat another one and count once."]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["path,label", "gone.mp4,run"], r"names 1 files that do not exist in .* \(line 2: gone\.mp4\)"),
        (["path,label,start,end", "a.mp4,run,soon,"], "line 2: start is 'soon', which is no time"),
        (["path,label,start,end", "a.mp4,run,-1,2"], "line 2: start is '-1', which is no time"),
        (["path,label,start,end", "a.mp4,run,0,inf"], "line 2: end is 'inf', which is no time"),
        (["path,label,start,end", "a.mp4,run,3,2"], r"line 2: a\.mp4 is to end at 2 s, and to start at 3 s"),
        (
            ["path,label,start,end", "a.mp4,run,0,3", "a.mp4,walk,2,4"],
            r"line 3: this part of a\.mp4, 'walk' from 2 s on, overlaps that of line 2, 'run'",
        ),
        (["path,label", "a.mp4,run", "a.mp4,walk"], r"line 3: this part of a\.mp4, 'walk' .* overlaps"),
        (
            ["path,label,start,end,split", "a.mp4,run,0,2,train", "a.mp4,walk,2,4,test"],
            r"line 3: a\.mp4 has the split 'test', but 'train' in line 2",
        ),
        (["path,label"], "has no rows"),
        (["path,class", "a.mp4,run"], "column 'label' is missing"),
    ],
)
def test_a_table_that_cannot_be_followed_is_refused_with_its_line(tmp_path: Path, lines: list[str], words: str) -> None:
    touch(tmp_path, "a.mp4")
    with pytest.raises(KingletError, match=words):
        find_videos(str(table(tmp_path, *lines)), str(tmp_path))


def test_other_sources_hold_no_videos(tmp_path: Path) -> None:
    with pytest.raises(KingletError, match="is a bucket, and videos are read from a folder"):
        find_videos("s3://bucket/videos", "")
