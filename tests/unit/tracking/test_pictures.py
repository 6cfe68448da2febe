"""Tracks as they are drawn: boxes on frames, strips, and a video that holds the frames at their times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kinglet.errors import KingletError
from kinglet.runtime.videos import Video
from kinglet.tracking.pictures import VideoWriter, colour_of, draw_tracks, strip_frames, strip_of
from kinglet.tracking.tracks import tracks_of


def test_a_track_keeps_its_colour_and_others_have_another() -> None:
    image = np.zeros((80, 120, 3), np.uint8)
    drawn = draw_tracks(image, tracks_of([1, 1], [3, 4], [[10, 30, 40, 60], [60, 30, 100, 70]]))
    assert tuple(drawn[60, 25]) == colour_of(3)
    assert tuple(drawn[70, 80]) == colour_of(4) != colour_of(3)
    assert not drawn[45, 25].any()
    assert not image.any()


def test_a_strip_shows_the_first_and_the_last_frame_at_one_height() -> None:
    assert strip_frames(100) == [1, 21, 41, 60, 80, 100]
    assert strip_frames(2) == [1, 2]
    strip = strip_of([np.zeros((60, 80, 3), np.uint8), np.zeros((120, 120, 3), np.uint8)], height=30)
    assert strip.shape == (30, 40 + 4 + 30, 3)


def test_a_video_holds_its_frames_at_their_times_and_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one.mp4", "two.mp4"):
        with VideoWriter(tmp_path / name, 25) as video:
            for number in range(6):
                video.write(np.full((31, 45, 3), 40 * number, np.uint8), [0, 0.04, 0.08, 0.2, 0.24, 0.5][number])
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
    read = list(Video(tmp_path / "one.mp4"))
    assert [round(frame.seconds, 2) for frame in read] == [0, 0.04, 0.08, 0.2, 0.24, 0.5]
    # Sides are even in H.264.
    assert read[0].image.shape == (32, 46, 3)
    assert [round(float(frame.image.mean()) / 40) for frame in read] == list(range(6))


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "film.mp4", 25) as video:
        video.write(np.zeros((10, 20, 3), np.uint8), 0)
        with pytest.raises(KingletError, match="a frame of 12 x 10 pixels follows one of 20 x 10"):
            video.write(np.zeros((10, 12, 3), np.uint8), 0.04)
