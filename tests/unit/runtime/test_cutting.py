"""Clips lie where their times say: evenly in a video, without overlap, and as fast as the video was."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinglet.runtime.cutting import Cutting, chosen_cutting, cut, shown_at


def even(n_frames: int, rate: float) -> np.ndarray:
    return np.arange(n_frames) / rate


def test_a_clip_at_the_videos_own_rate_takes_every_frame_once_from_the_middle() -> None:
    (places,) = cut(even(20, 25), Cutting(16, 25, 1))
    assert places.tolist() == list(range(2, 18))


def test_times_that_a_container_rounded_change_nothing() -> None:
    (places,) = cut(np.round(even(24, 12), 3), Cutting(16, 12, 1))
    assert np.diff(places).tolist() == [1] * 15


def test_several_clips_are_spread_evenly_and_do_not_overlap() -> None:
    first, second, third = cut(even(30, 10), Cutting(4, 5, 3))
    assert [places.tolist() for places in (first, second, third)] == [[1, 3, 5, 7], [11, 13, 15, 17], [21, 23, 25, 27]]


def test_no_more_clips_are_cut_than_a_video_has_room_for() -> None:
    assert len(cut(even(32, 10), Cutting(16, 10, 4))) == 2
    assert len(cut(even(31, 10), Cutting(16, 10, 4))) == 1


@pytest.mark.parametrize("n_frames", [0, 1, 15])
def test_a_video_that_is_too_short_gives_no_clip(n_frames: int) -> None:
    assert cut(even(n_frames, 10), Cutting(16, 10, 1)) == []
    assert len(cut(even(16, 10), Cutting(16, 10, 1))) == 1


def test_a_frame_that_stays_on_the_screen_is_taken_for_as_long() -> None:
    times = np.array([0, 0.1, 0.2, 0.7, 0.8])
    (places,) = cut(times, Cutting(9, 10, 1))
    assert places.tolist() == [0, 1, 2, 2, 2, 2, 2, 3, 4]


def test_before_the_first_frame_the_first_is_shown() -> None:
    assert shown_at(np.array([0.5, 1.0]), np.array([0.0, 0.6, 2.0])).tolist() == [0, 0, 1]


def test_automatic_clips_cover_what_nearly_all_videos_have() -> None:
    lengths = [2.0] + [10.0] * 98 + [0.2]
    cutting = chosen_cutting([even(round(25 * length) + 1, 25) for length in lengths], 16, None, None)
    assert cutting.rate == pytest.approx(15 / 2)
    assert cutting.seconds == pytest.approx(2)
    assert cutting.per_video == 4


@pytest.mark.parametrize(
    ("n_frames", "own_rate", "rate"), [(10, 25, 25), (1500, 25, 5), (4, 2, 2)], ids=["short", "long", "slow"]
)
def test_the_automatic_rate_is_five_at_least_and_never_above_the_videos_own(
    n_frames: int, own_rate: float, rate: float
) -> None:
    assert chosen_cutting([even(n_frames, own_rate)], 16, None, 1).rate == pytest.approx(rate)


def test_what_somebody_sets_is_kept_and_videos_of_one_frame_say_nothing() -> None:
    assert chosen_cutting([even(100, 25), even(1, 25)], 8, 12.5, 2) == Cutting(8, 12.5, 2)
    with pytest.raises(ValueError, match="two frames"):
        chosen_cutting([even(1, 25), even(0, 25)], 8, 12.5, 2)


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.floats(0.005, 0.5), min_size=1, max_size=60),
    frames=st.integers(2, 16),
    rate=st.floats(1, 60),
    per_video=st.integers(1, 4),
)
def test_clips_of_any_video_keep_their_order_and_length(
    gaps: list[float], frames: int, rate: float, per_video: int
) -> None:
    times = np.concatenate([[0], np.cumsum(gaps)])
    clips = cut(times, Cutting(frames, rate, per_video))
    assert len(clips) <= per_video
    assert bool(clips) == (times[-1] >= (frames - 1) / rate - 0.002)
    for places in clips:
        assert len(places) == frames
        assert (np.diff(places) >= 0).all()
        assert places[0] >= 0
        assert places[-1] < len(times)
    for before, after in pairwise(clips):
        assert before[-1] <= after[0]
