"""Sequences are read as images with boxes: a group each, identities kept, frames of videos decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinglet.data.annotations import read_annotations
from kinglet.data.annotations.mot import read_frame, sequence_frames
from kinglet.data.sources.folder import list_files
from kinglet.data.sources.records import Record
from kinglet.errors import KingletError
from tests.unit.tracking.made_videos import HEIGHT, WIDTH, number_in, write_video

TRUTH = "1,4,1,1,10,10,1,1,1\n2,4,3,1,10,10,1,1,1\n2,9,-9,20,20,10,1,2,1\n3,9,900,20,20,10,1,2,1\n"


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A sequence of three frames in a video."""
    (tmp_path / "train/street/gt").mkdir(parents=True)
    (tmp_path / "train/street/gt/gt.txt").write_text(TRUTH)
    (tmp_path / "train/street/gt/labels.txt").write_text("person\ncar\n")
    write_video(tmp_path / "train/street/film.mp4", [0, 40, 80])
    return tmp_path


def test_frames_of_a_video_are_images_of_one_group_with_identities(film: Path) -> None:
    found = read_annotations(film, list_files(film), "MOTChallenge")
    assert [image.path for image in found.images] == [f"train/street/film.mp4#00000{number}" for number in (1, 2, 3)]
    assert {(image.group, image.split, image.width, image.height) for image in found.images} == {
        ("train/street", "train", WIDTH, HEIGHT)
    }
    first, second, third = (image.boxes for image in found.images)
    assert [(box.label, box.xyxy, box.identity) for box in first] == [("person", (0, 0, 10, 10), 4)]
    # Cut at the left edge; one that lies outside is none.
    assert [(box.label, box.xyxy, box.identity) for box in second][1] == ("car", (0, 19, 10, 29), 9)
    assert third == ()
    assert [finding.place for finding in found.changed] == ["train/street/gt/gt.txt, frame 2, id 9"]
    assert [finding.place for finding in found.dropped] == ["train/street/gt/gt.txt, frame 3, id 9"]
    assert found.classes == ("car", "person")


def test_frames_are_read_in_any_order_as_the_table_of_frames_numbers_them(film: Path) -> None:
    frames = sequence_frames(film)
    assert [(frame.sequence, frame.number) for frame in frames] == [("train/street", number) for number in (1, 2, 3)]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.04, 0.08])
    for frame in (frames[2], frames[0], frames[1]):
        content = read_frame(str(film), Record(frame.path, frame.path))
        assert not isinstance(content, bytes)
        assert number_in(content) == frame.number


def test_boxes_in_frames_that_do_not_exist_are_refused(film: Path) -> None:
    (film / "train/street/gt/gt.txt").write_text("4,1,1,1,5,5,1,1,1\n")
    with pytest.raises(KingletError, match=r"gt\.txt has boxes in frame 4; .*film\.mp4 ends with 3\."):
        read_annotations(film, list_files(film), "MOTChallenge")


def test_a_truth_that_contradicts_itself_ends_the_run_with_its_line(film: Path) -> None:
    (film / "train/street/gt/gt.txt").write_text("1,1,1,1,5,5,1,1,1\n1,1,9,1,5,5,1,1,1\n")
    with pytest.raises(KingletError, match=r"gt\.txt, line 2: id 1 is in frame 1 twice"):
        read_annotations(film, list_files(film), "MOTChallenge")
