"""Intervals of tracks' scores: over sequences where there are enough, over windows of frames where not, and paired."""

from __future__ import annotations

import numpy as np
import pytest

from kinglet.tracking.intervals import BLOCKS, NONE, SEQUENCES, Replicates, Tracked, replicates_of, windows_of
from kinglet.tracking.scores import COMPARED, count
from kinglet.tracking.tracks import Tracks, tracks_of
from tests.unit.tracking.made_tracks import HOTA, IDF1, MOTA, tracks, truth


def made(found: list[Tracks], true: list[Tracks]) -> list[Tracked]:
    return [Tracked(one, other, int(one.frames[-1])) for one, other in zip(true, found, strict=True)]


def replicates(sequences: list[Tracked]) -> Replicates:
    return replicates_of(sequences, [count(item.truth, item.tracks) for item in sequences])


def walk(n: int, missed: float, seed: int) -> tuple[Tracks, Tracks]:
    """Return the truth of one object over n frames, and tracks that miss each box with this probability."""
    x = 2.0 * np.arange(n)
    boxes = np.stack([x, np.zeros(n), x + 20, np.full(n, 20.0)], axis=1)
    true = tracks_of(np.arange(1, n + 1), np.ones(n, np.int64), boxes)
    return true, true.take(np.random.default_rng(seed).random(n) >= missed)


def test_sequences_are_drawn_where_there_are_enough() -> None:
    found = replicates(made([tracks(), truth()] * 5, [truth()] * 10))
    assert found.over == SEQUENCES
    interval = found.intervals()["mota"]
    assert interval is not None
    # The mean of ten values that are 0.7 or 1: 0.85, with a standard error of 0.15 / sqrt(10).
    assert interval.value == pytest.approx(0.85)
    assert (interval.low, interval.high) == pytest.approx((0.85 - 0.09, 0.85 + 0.09), abs=0.02)


def test_values_are_the_scores_of_all_sequences_whatever_the_intervals_come_from() -> None:
    found = replicates(made([tracks()] * 8, [truth()] * 8))
    assert found.values == pytest.approx((MOTA, IDF1, HOTA))


def test_windows_of_frames_are_left_out_where_sequences_are_few() -> None:
    true, seen = walk(400, 0.2, seed=1)
    found = replicates(made([seen], [true]))
    assert (found.over, len(found.drawn)) == (BLOCKS, 20)
    interval = found.intervals()["mota"]
    assert interval is not None
    # Boxes are missed independently: the interval of a share of 400.
    share = len(seen) / 400
    reach = 1.96 * np.sqrt(share * (1 - share) / 400)
    assert interval.value == pytest.approx(share)
    assert interval.high - interval.low == pytest.approx(2 * reach, rel=0.4)


def test_too_few_frames_have_no_interval_and_that_is_said() -> None:
    found = replicates(made([tracks()], [truth()]))
    assert found.over == NONE
    assert found.intervals() == dict.fromkeys(COMPARED)


def test_differences_are_paired() -> None:
    true, seen = walk(400, 0.3, seed=2)
    own = replicates(made([seen], [true]))
    # The same frames are missed and four more, evenly spread: alone each is uncertain, their difference is not.
    fewer = seen.take(~np.isin(np.arange(len(seen)), [10, 90, 170, 250]))
    less = replicates(made([fewer], [true]))
    difference, alone = less.minus(own).intervals()["mota"], own.intervals()["mota"]
    assert difference is not None
    assert alone is not None
    assert difference.value == pytest.approx(-0.01)
    assert difference.high - difference.low < (alone.high - alone.low) / 2
    same = own.minus(own).intervals()["mota"]
    assert same is not None
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_difference_needs_the_same_sequences() -> None:
    with pytest.raises(ValueError, match="same sequences"):
        replicates(made([tracks()] * 8, [truth()] * 8)).minus(replicates(made([tracks()], [truth()])))


def test_windows_cover_every_frame_once() -> None:
    windows = windows_of([100, 37, 8])
    covered = [(place, frame) for place, first, last in windows for frame in range(first, last + 1)]
    assert covered == [(0, n) for n in range(1, 101)] + [(1, n) for n in range(1, 38)] + [(2, n) for n in range(1, 9)]
    assert min(last - first + 1 for place, first, last in windows if place < 2) >= 9
