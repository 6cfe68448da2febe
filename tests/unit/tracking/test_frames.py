"""Folders of frames are read in the order of their numbers, and gaps are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinglet.errors import KingletError
from kinglet.tracking.frames import FrameFolder, open_frames
from kinglet.tracking.sequences import find_sequences
from tests.unit.tracking.made_videos import write_video


def write_frames(folder: Path, names: list[str], mode: str = "RGB") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for level, name in enumerate(names):
        Image.fromarray(np.full((6, 8, 3), 10 * level, np.uint8)).convert(mode).save(folder / name)
    return folder


def test_frames_come_in_the_order_of_their_numbers_whatever_their_width(tmp_path: Path) -> None:
    frames = FrameFolder(write_frames(tmp_path / "a", ["f8.png", "f9.png", "f10.png", "f11.png"]), rate=10)
    assert [frame.image[0, 0, 0] for frame in frames] == [0, 10, 20, 30]
    assert [(frame.number, frame.seconds) for frame in frames] == [(1, 0.0), (2, 0.1), (3, 0.2), (4, 0.3)]


def test_gray_frames_have_three_channels_like_those_of_videos(tmp_path: Path) -> None:
    frames = open_frames(write_frames(tmp_path / "a", ["1.png", "2.png"], "L"))
    assert frames.frame(2).image.tolist() == np.full((6, 8, 3), 10).tolist()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["000001.png", "000003.png"], "the frames 000001.png and 000003.png leave numbers out between them"),
        (["a1.png", "b1.png"], "the frames a1.png and b1.png have the same number"),
        (["1.png", "cover.png"], "cover.png has no number at its end, and others have"),
        ([], "holds no frames"),
    ],
)
def test_a_folder_whose_frames_do_not_count_one_by_one_is_refused(tmp_path: Path, names: list[str], told: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("no frame")
    with pytest.raises(KingletError, match=told):
        open_frames(write_frames(tmp_path / "a", names))


def test_a_frame_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "a", ["1.png", "2.png"])
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:40])
    with pytest.raises(KingletError, match=r"2\.png cannot be decoded"):
        list(open_frames(folder))


def sequence(root: Path, name: str, truth: str = "1,1,1,1,4,4,1,-1,-1,-1\n") -> Path:
    (root / name / "gt").mkdir(parents=True)
    (root / name / "gt" / "gt.txt").write_text(truth)
    return root / name


def test_sequences_are_found_with_images_or_a_video_and_what_is_told_of_them(tmp_path: Path) -> None:
    write_frames(sequence(tmp_path, "train/first") / "img1", ["1.png", "2.png"])
    (tmp_path / "train/first/seqinfo.ini").write_text("[Sequence]\nname=x\nimDir=img1\nframeRate=14\nseqLength=2\n")
    write_video(sequence(tmp_path, "test/second") / "film.mp4", [0, 40, 80])
    (tmp_path / "labels.txt").write_text("person\n\ncar\n")
    first, second = sorted(find_sequences(tmp_path), key=lambda found: found.name, reverse=True)
    assert (first.name, first.rate, first.names, len(first.open())) == ("train/first", 14.0, ("person", "car"), 2)
    assert (second.name, second.rate, len(second.open())) == ("test/second", None, 3)
    assert (first.class_name(2), first.class_name(-1)) == ("car", "object")
    with pytest.raises(KingletError, match=r"gt\.txt has class 3, and labels\.txt names 2\."):
        first.class_name(3)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ("[Sequence]\nframeRate=fast\n", "framerate is 'fast', no number above 0"),
        ("[Sequence]\nseqLength=9\n", "announces 9 frames, and .*img1 holds 2"),
        ("frameRate=25\n", r"seqinfo.ini has no section \[Sequence\] that can be read"),
    ],
)
def test_facts_of_a_sequence_that_are_wrong_are_told(tmp_path: Path, facts: str, told: str) -> None:
    write_frames(sequence(tmp_path, "a") / "img1", ["1.png", "2.png"])
    (tmp_path / "a/seqinfo.ini").write_text(facts)
    with pytest.raises(KingletError, match=told):
        find_sequences(tmp_path)[0].open()


def test_a_sequence_needs_frames_and_a_folder_sequences(tmp_path: Path) -> None:
    with pytest.raises(KingletError, match="holds no sequence"):
        find_sequences(tmp_path)
    folder = sequence(tmp_path, "a")
    with pytest.raises(KingletError, match="a holds neither a folder img1 nor a video"):
        find_sequences(tmp_path)
    for name in ("one.mp4", "two.mp4"):
        (folder / name).write_bytes(b"")
    with pytest.raises(KingletError, match="a holds 2 videos"):
        find_sequences(tmp_path)
