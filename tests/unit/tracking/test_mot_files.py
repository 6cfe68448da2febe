"""Files of tracks are read as they are written, and each slip in them is told by file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kinglet.errors import KingletError
from kinglet.tracking.mot_files import read_detections, read_tracks, read_truth, write_tracks
from kinglet.tracking.tracks import NO_CLASS, Tracks, tracks_of


def file_with(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "tracks.txt"
    file.write_text("\n".join(lines) + "\n")
    return file


def same(one: Tracks, other: Tracks) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in Tracks.__dataclass_fields__)


def test_pixels_count_from_one_in_the_file_and_from_zero_in_memory(tmp_path: Path) -> None:
    found = read_tracks(file_with(tmp_path, "2,7,1,1,10,20,0.5,-1,-1,-1", "1,3,11,21,5,5,0.25,-1,-1,-1"))
    assert found.frames.tolist() == [1, 2]
    assert found.ids.tolist() == [3, 7]
    assert found.xyxy.tolist() == [[10, 20, 15, 25], [0, 0, 10, 20]]
    assert found.scores.tolist() == [0.25, 0.5]
    assert found.labels.tolist() == [NO_CLASS, NO_CLASS]


@pytest.mark.parametrize("labels", [None, [2, 1, 2]])
def test_what_is_written_is_read_again(tmp_path: Path, labels: list[int] | None) -> None:
    written = tracks_of([3, 1, 1], [1, 2, 1], [[0, 0, 4, 5], [1.5, 2, 3, 9.25], [7, 7, 9, 9]], labels, [0.5, 1, 0.25])
    write_tracks(tmp_path / "out.txt", written)
    assert same(read_tracks(tmp_path / "out.txt"), written)


def test_boxes_of_the_truth_that_do_not_count_are_left_out_and_classes_are_read(tmp_path: Path) -> None:
    lines = ["1,1,1,1,5,5,1,1,0.5", "1,2,9,9,5,5,0,7,1", "2,1,1,1,5,5,1,3,1"]
    found = read_truth(file_with(tmp_path, *lines))
    assert (found.ids.tolist(), found.labels.tolist(), found.scores.tolist()) == ([1, 1], [1, 3], [1.0, 1.0])


def test_ten_numbers_end_with_a_place_in_the_world_and_name_no_class(tmp_path: Path) -> None:
    assert read_truth(file_with(tmp_path, "1,1,1,1,5,5,1,3,4,5")).labels.tolist() == [NO_CLASS]


def test_detections_need_no_identities(tmp_path: Path) -> None:
    found = read_detections(file_with(tmp_path, "2,-1,1,1,5,5,0.9,-1,-1,-1", "1,-1,1,1,5,5,8", "1,-1,9,1,5,5,7"))
    assert (found.frames.tolist(), found.ids.tolist()) == ([1, 1, 2], [0, 1, 0])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1,4,2,2,5,5,1", r"line 2: id 4 is in frame 1 twice, see line 1\."),
        ("1,5,nan,2,5,5,1", r"line 2: its left is nan, no finite number\."),
        ("1,5,2,2,inf,5,1", r"line 2: its width is inf, no finite number\."),
        ("1,5,2,2,wide,5,1", r"line 2: its width is 'wide', no number\."),
        ("one,5,2,2,5,5,1", r"line 2: its frame is 'one', no number\."),
        ("1.5,5,2,2,5,5,1", r"line 2: its frame is 1\.5, no whole number\."),
        ("0,5,2,2,5,5,1", r"line 2: its frame is 0, and frames count from 1\."),
        ("1,-1,2,2,5,5,1", r"line 2: its id is -1, which is how detections are told that have none\."),
        ("1,5,2,2,0,5,1", r"line 2: its box has no area: 0 x 5\."),
        ("1,5,2,2,5,-5,1", r"line 2: its box has no area: 5 x -5\."),
        ("1,5,2,2,5,5", r"line 2: it has 6 columns, not 7 to 10\."),
        ("1,5,2,2,5,5,1,1,1,1,1", r"line 2: it has 11 columns, not 7 to 10\."),
        ("1 5 2 2 5 5 1", r"line 2: it has 1 columns, not 7 to 10\."),
    ],
)
def test_a_line_that_is_no_box_is_told(tmp_path: Path, line: str, told: str) -> None:
    file = file_with(tmp_path, "1,4,1,1,5,5,1", line)
    with pytest.raises(KingletError, match=told):
        read_tracks(file)


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(KingletError, match=r"none\.txt does not exist\."):
        read_tracks(tmp_path / "none.txt")
    (tmp_path / "picture.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(KingletError, match=r"picture\.txt is no text file of tracks\."):
        read_tracks(tmp_path / "picture.txt")
    with pytest.raises(KingletError, match="holds no box that counts"):
        read_truth(file_with(tmp_path, "1,4,1,1,5,5,0"))


def test_an_empty_file_of_tracks_is_a_sequence_in_which_nothing_was_found(tmp_path: Path) -> None:
    assert len(read_tracks(file_with(tmp_path))) == 0
