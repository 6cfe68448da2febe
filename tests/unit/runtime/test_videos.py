"""Videos are read frame by frame, each at its time and upright; what cannot be read is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kinglet.errors import KingletError
from kinglet.runtime.videos import Video
from tests.unit.tracking.made_videos import damage_packet, number_in, turn_clockwise, write_sound, write_video

EVEN = [40 * number for number in range(30)]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("film.mp4", "libx264"), ("film.avi", "mpeg4"), ("film.mkv", "libx264"), ("film.webm", "libvpx-vp9")],
)
def test_any_frame_is_the_one_that_its_place_in_the_film_says(tmp_path: Path, name: str, codec: str) -> None:
    video = Video(write_video(tmp_path / name, EVEN, codec))
    assert (len(video), video.is_even) == (30, True)
    assert video.rate == pytest.approx(25, rel=0.01)
    in_order = list(video)
    assert [number_in(frame.image) for frame in in_order] == list(range(1, 31))
    for number in np.random.default_rng(0).permutation(30)[:12] + 1:
        frame = video.frame(int(number))
        assert (frame.image == in_order[number - 1].image).all()
        assert (frame.number, frame.seconds) == (number, in_order[number - 1].seconds)


def test_frames_of_a_variable_rate_keep_their_own_times(tmp_path: Path) -> None:
    times = [0, 40, 80, 120, 320, 360, 400, 900]
    video = Video(write_video(tmp_path / "film.mp4", times))
    assert not video.is_even
    assert [round(1000 * frame.seconds) for frame in video] == times
    assert video.rate == pytest.approx(7 / 0.9)


def test_a_film_that_its_metadata_turn_is_read_upright(tmp_path: Path) -> None:
    file = write_video(tmp_path / "film.mp4", EVEN)
    turn_clockwise(file)
    image = Video(file).frame(1).image
    assert image.shape == (64, 48, 3)
    # The red corner was at the upper left.
    assert image[2, -3, 0] > 200 > 60 > image[2, 2, 0]


def test_a_broken_frame_is_told_and_not_guessed(tmp_path: Path) -> None:
    file = write_video(tmp_path / "film.mp4", EVEN)
    damage_packet(file, 15)
    with pytest.raises(KingletError, match=r"film\.mp4: frame \d+ of 30, at 0\.\d\d s, cannot be decoded\.") as caught:
        list(Video(file))
    assert "ffmpeg" in caught.value.hint


def test_a_film_that_breaks_off_is_told(tmp_path: Path) -> None:
    file = write_video(tmp_path / "film.mkv", [40 * number for number in range(60)])
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(KingletError, match=r"film\.mkv: it breaks off after \d\.\d of 2\.4 seconds\."):
        Video(file)


def test_a_film_without_its_index_is_no_video(tmp_path: Path) -> None:
    file = write_video(tmp_path / "film.mp4", EVEN)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(KingletError, match=r"film\.mp4 is no video that FFmpeg can read: "):
        Video(file)


def test_what_holds_no_frames_is_told(tmp_path: Path) -> None:
    (tmp_path / "words.mp4").write_text("no video")
    with pytest.raises(KingletError, match=r"words\.mp4 is no video that FFmpeg can read: Invalid data"):
        Video(tmp_path / "words.mp4")
    with pytest.raises(KingletError, match=r"sound\.mp4 holds no video, only audio\."):
        Video(write_sound(tmp_path / "sound.mp4"))
    with pytest.raises(KingletError, match=r"none\.mp4 does not exist\."):
        Video(tmp_path / "none.mp4")


def test_a_film_of_one_frame_is_read(tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / "film.mp4", [0]))
    assert [number_in(frame.image) for frame in video] == [1]
