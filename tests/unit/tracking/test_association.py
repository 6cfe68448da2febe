"""Boxes of frames become tracks: through crossings and gaps, class by class, and as the authors of SORT publish."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kinglet.runtime.detection import Detections
from kinglet.tracking.association import ASSOCIATIONS, Follower, Settings, follow
from kinglet.tracking.mot_files import read_detections, read_truth
from kinglet.tracking.scores import count, scores_of
from kinglet.tracking.sort import Sort
from kinglet.tracking.tracks import Tracks, tracks_of

TUD = Path("../shared/data/mot15_tud")


def detections(*boxes: tuple[float, float, int, float]) -> Detections:
    """Return objects 20 pixels wide; boxes: left, top, class, score."""
    ordered = sorted(boxes, key=lambda box: -box[3])
    corner = np.array([box[:2] for box in ordered], np.float32).reshape(-1, 2)
    labels = np.array([box[2] for box in ordered], np.int64)
    return Detections(np.concatenate([corner, corner + 20], axis=1), labels, np.array([box[3] for box in ordered]))


def two_walkers(n: int, missing: tuple[int, ...] = (), score: float = 0.9) -> Iterator[tuple[int, Detections]]:
    """Yield frames of two objects that walk past each other; the first is not found in the frames that are missing."""
    for frame in range(1, n + 1):
        right = [] if frame in missing else [(3.0 * frame, 0.0, 0, score)]
        yield frame, detections(*right, (100 - 3.0 * frame, 30.0, 0, 0.9))


def walkers_truth(n: int) -> Tracks:
    frames = [frame for frame in range(1, n + 1) for _ in range(2)]
    boxes = [
        [x, y, x + 20, y + 20] for frame in range(1, n + 1) for x, y in ((3.0 * frame, 0), (100 - 3.0 * frame, 30))
    ]
    return tracks_of(frames, [1, 2] * n, boxes, [0] * len(frames))


@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_objects_that_are_found_in_every_frame_are_two_tracks(association: str) -> None:
    found = follow(two_walkers(30), Settings(association), rate=25)
    assert set(found.ids.tolist()) == {1, 2}
    scores = scores_of([count(walkers_truth(30), found)])
    assert (scores.id_switches, scores.false_positives) == (0, 0)
    assert scores.recall > 0.95


def test_bytetrack_goes_on_with_boxes_that_are_not_sure_and_sort_does_not() -> None:
    frames = [
        (frame, objects if frame < 10 else two)
        for (frame, objects), (_, two) in zip(two_walkers(20), two_walkers(20, score=0.2), strict=True)
    ]
    recalls = {
        name: scores_of([count(walkers_truth(20), follow(frames, Settings(name), 25))]).recall for name in ASSOCIATIONS
    }
    assert recalls["bytetrack"] > 0.9 > 0.8 > recalls["sort"]


def test_a_track_outlives_a_gap_as_long_as_it_may_and_no_longer() -> None:
    frames = list(two_walkers(30, missing=(15, 16, 17)))
    assert len(set(follow(frames, Settings("sort", max_lost=3), 25).ids.tolist())) == 2
    assert len(set(follow(frames, Settings("sort", max_lost=2), 25).ids.tolist())) == 3


@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_times_of_frames_that_are_uneven_are_followed(association: str) -> None:
    # Found at 25 frames per second, then with six frames left out each time: the boxes no longer overlap.
    numbers = [*range(1, 12), 18, 25, 32]
    follower = Follower(Settings(association, max_lost=20, min_iou=0.3), rate=25)
    by_time = [
        follower.update(place, detections((4.0 * number, 0, 0, 0.9)), number / 25)
        for place, number in enumerate(numbers, start=1)
    ]
    assert {identity for tracks in by_time for identity in tracks.ids.tolist()} == {1}
    counted = follow(
        [(place, detections((4.0 * number, 0, 0, 0.9))) for place, number in enumerate(numbers, start=1)],
        Settings(association, max_lost=20, min_iou=0.3),
        rate=25,
    )
    assert counted.frames.max() < len(numbers)


@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_a_box_of_another_class_is_another_object(association: str) -> None:
    frames = [(frame, detections((10.0, 10.0, 0 if frame <= 10 else 1, 0.9))) for frame in range(1, 21)]
    found = follow(frames, Settings(association), 25)
    assert {(identity, label) for identity, label in zip(found.ids, found.labels, strict=True)} == {(1, 0), (2, 1)}


@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_frames_without_objects_and_sequences_without_frames_have_no_tracks(association: str) -> None:
    assert len(follow([(frame, detections()) for frame in range(1, 5)], Settings(association), 25)) == 0
    assert len(follow([], Settings(association), 25)) == 0


def test_an_unknown_association_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown association 'magic'; known: bytetrack, sort"):
        Follower(Settings("magic"), 25)


def test_sort_shows_a_track_that_begins_later_only_when_it_was_found_often_enough() -> None:
    sort, box = Sort(min_frames=3), np.array([[0.0, 0, 10, 10]])
    for _ in range(5):
        sort.update(np.empty((0, 4)))
    shown = [sort.update(box)[0].tolist() for _ in range(5)]
    assert shown == [[], [], [], [1], [1]]


@pytest.mark.skipif(not TUD.exists(), reason="../shared/data/mot15_tud is not there")
def test_sort_gives_its_published_figures() -> None:
    truth = read_truth(TUD / "TUD-Campus/gt/gt.txt")
    boxes = read_detections(TUD / "sort_detections/TUD-Campus/det/det.txt")
    frames = []
    for frame in range(1, int(boxes.frames[-1]) + 1):
        own = boxes.take(boxes.frames == frame)
        frames.append((frame, Detections(own.xyxy.astype(np.float32), own.labels, own.scores.astype(np.float32))))
    settings = Settings("sort", sure_score=0, max_lost=1, min_frames=3, min_iou=0.3)
    scores = scores_of([count(truth, follow(frames, settings, 25))])
    assert [round(100 * share, 1) for share in (scores.recall, scores.precision, scores.mota)] == [68.5, 94.3, 62.7]
    assert (scores.false_positives, scores.misses, scores.id_switches) == (15, 113, 6)
