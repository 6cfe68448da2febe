"""Scores of tracks are those reckoned by hand, and those published for real sequences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kinglet.tracking.mot_files import read_tracks, read_truth
from kinglet.tracking.scores import count, scores_of
from tests.unit.tracking.made_tracks import HOTA, IDF1, MOTA, tracks, truth

TUD = Path("../shared/data/mot15_tud")


def test_scores_are_those_reckoned_by_hand() -> None:
    scores = scores_of([count(truth(), tracks())])
    assert (scores.mota, scores.idf1, scores.hota) == pytest.approx((MOTA, IDF1, HOTA))
    assert (scores.objects, scores.misses, scores.false_positives, scores.id_switches) == (10, 1, 1, 1)
    assert (scores.recall, scores.precision) == pytest.approx((0.9, 0.9))
    assert (scores.identities, scores.mostly_tracked, scores.mostly_lost) == (2, 1, 0)


def test_perfect_tracks_score_one_and_none_at_all_zero() -> None:
    perfect = scores_of([count(truth(), truth())])
    assert (perfect.mota, perfect.idf1, perfect.hota) == (1, 1, 1)
    nothing = scores_of([count(truth(), truth().take(np.zeros(10, bool)))])
    assert (nothing.mota, nothing.idf1, nothing.hota, nothing.misses) == (0, 0, 0, 10)


def test_sequences_together_count_by_their_boxes() -> None:
    scores = scores_of([count(truth(), tracks()), count(truth(), truth())])
    assert scores.mota == pytest.approx(1 - 3 / 20)
    assert scores.idf1 == pytest.approx(2 * 17 / 40)


def test_a_box_of_another_class_is_a_miss_and_a_false_box() -> None:
    true = replace(truth(), labels=np.tile([1, 2], 5))
    found = scores_of([count(true, replace(true, labels=np.ones(10, np.int64)))])
    assert (found.misses, found.false_positives) == (5, 5)


@pytest.mark.skipif(not TUD.exists(), reason="../shared/data/mot15_tud is not there")
@pytest.mark.parametrize(
    ("sequence", "shares", "counts"),
    [
        ("TUD-Campus", (58.2, 94.1, 52.6, 55.8), (13, 150, 7)),
        ("TUD-Stadtmitte", (60.9, 94.0, 56.4, 64.5), (45, 452, 7)),
    ],
)
def test_the_published_figures_are_met(sequence: str, shares: tuple[float, ...], counts: tuple[int, ...]) -> None:
    folder = TUD / sequence
    scores = scores_of([count(read_truth(folder / "gt/gt.txt"), read_tracks(folder / "motmetrics_reference/test.txt"))])
    found = (scores.recall, scores.precision, scores.mota, scores.idf1)
    assert tuple(round(100 * share, 1) for share in found) == shares
    assert (scores.false_positives, scores.misses, scores.id_switches) == counts
