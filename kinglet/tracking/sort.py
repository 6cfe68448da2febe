"""SORT: tracks of boxes by a Kalman filter each, and the assignment whose overlaps are largest in sum.

Why not from a library: on the detections that the authors ship for TUD-Campus, this gives their figures (MOTA 62.7);
that of `trackers` gives 56.3 with the same settings, since it reports the boxes as found and not as filtered, and
leaves out what a new track shows first. See docs/tracking.md.

Source: Bewley et al. 2016, "Simple Online and Realtime Tracking", sections 3.1 to 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from kinglet.runtime.boxes import box_iou

# What the filter knows: center x and y, area, ratio of width to height, and the speeds of the first three.
N_STATES, N_MEASURED = 7, 4
AREA, AREA_SPEED = 2, 6
# Variances, in pixels: area and ratio are measured less surely than the center; speeds are not known at first, and
# change little.
MEASUREMENT_NOISE = np.diag([1.0, 1.0, 10.0, 10.0])
FIRST_COVARIANCE = np.diag([10.0] * N_MEASURED + [1e4] * (N_STATES - N_MEASURED))
PROCESS_NOISE = np.diag([1.0] * N_MEASURED + [1e-2, 1e-2, 1e-4])
OBSERVATION = np.eye(N_MEASURED, N_STATES)


@dataclass
class Track:
    """One object on its way. state: (7,); covariance: (7, 7).

    hits: frames in a row in which it was found, the first not counted. missed: frames since it was found.
    """

    identity: int
    state: NDArray[np.float64]
    covariance: NDArray[np.float64]
    hits: int = 0
    missed: int = 0

    def predict(self, step: float) -> None:
        """Move on by so many frames."""
        if self.state[AREA] + self.state[AREA_SPEED] * step <= 0:
            self.state[AREA_SPEED] = 0.0
        motion = np.eye(N_STATES)
        motion[[0, 1, AREA], [4, 5, AREA_SPEED]] = step
        self.state = motion @ self.state
        self.covariance = motion @ self.covariance @ motion.T + PROCESS_NOISE * step
        if self.missed:
            self.hits = 0
        self.missed += 1

    def update(self, box: NDArray[np.float64]) -> None:
        """Take note of where it was found, xyxy."""
        gain = self.covariance @ OBSERVATION.T
        gain = gain @ np.linalg.inv(OBSERVATION @ gain + MEASUREMENT_NOISE)
        self.state = self.state + gain @ (measured(box) - OBSERVATION @ self.state)
        rest = np.eye(N_STATES) - gain @ OBSERVATION
        # Joseph's form, which stays symmetric whatever is rounded.
        self.covariance = rest @ self.covariance @ rest.T + gain @ MEASUREMENT_NOISE @ gain.T
        self.hits += 1
        self.missed = 0

    @property
    def box(self) -> NDArray[np.float64]:
        """Where it is thought to be, xyxy."""
        x, y, area, ratio = self.state[:N_MEASURED]
        width = np.sqrt(area * ratio)
        height = area / width
        return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


class Sort:
    """Tracks of the boxes of one class, frame by frame.

    min_frames: in a row in which a track is found before it is shown, but for the sequence's first. max_lost: frames
    without being found after which a track ends. min_iou: overlap from which a box may belong to a track.
    """

    def __init__(self, *, max_lost: int = 1, min_frames: int = 3, min_iou: float = 0.3) -> None:
        self.max_lost, self.min_frames, self.min_iou = max_lost, min_frames, min_iou
        self._tracks: list[Track] = []
        self._n_frames, self._n_identities = 0, 0

    def update(
        self, xyxy: NDArray[np.float64], step: float = 1.0
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return of the tracks that are shown in the next frame: identities (n,), places of their boxes among those
        given (n,), and where they are thought to be, xyxy (n, 4).

        xyxy: float64 (m, 4), the boxes of the frame. step: how many frames' time has passed since the last one.
        """
        self._n_frames += 1
        for track in self._tracks:
            track.predict(step)
        # An area that became negative, of a track that shrank while it was lost, is no box.
        self._tracks = [track for track in self._tracks if np.isfinite(track.box).all()]
        pairs = assign(xyxy, boxes_of(self._tracks), self.min_iou)
        place_of = {}
        for place, number in pairs:
            self._tracks[number].update(xyxy[place])
            place_of[self._tracks[number].identity] = place
        for place in sorted(set(range(len(xyxy))) - {place for place, _ in pairs}):
            self._tracks.append(self._begin(xyxy[place]))
            place_of[self._tracks[-1].identity] = place
        shown = [track for track in self._tracks if not track.missed and self._is_shown(track)]
        self._tracks = [track for track in self._tracks if track.missed <= self.max_lost]
        identities = [track.identity for track in shown]
        return (
            np.array(identities, np.int64),
            np.array([place_of[identity] for identity in identities], np.int64),
            boxes_of(shown),
        )

    def _begin(self, box: NDArray[np.float64]) -> Track:
        self._n_identities += 1
        state = np.concatenate([measured(box), np.zeros(N_STATES - N_MEASURED)])
        return Track(self._n_identities, state, FIRST_COVARIANCE.copy())

    def _is_shown(self, track: Track) -> bool:
        return track.hits >= self.min_frames or self._n_frames <= self.min_frames


def measured(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return center x and y, area, and ratio of width to height of a box, xyxy."""
    width, height = box[2] - box[0], box[3] - box[1]
    return np.array([box[0] + width / 2, box[1] + height / 2, width * height, width / height])


def boxes_of(tracks: list[Track]) -> NDArray[np.float64]:
    """Return where tracks are thought to be, (n, 4)."""
    return np.array([track.box for track in tracks], np.float64).reshape(-1, 4)


def assign(xyxy: NDArray[np.float64], tracked: NDArray[np.float64], min_iou: float) -> list[tuple[int, int]]:
    """Return (place of a box, place of a track) of all that belong together.

    Where every box overlaps one track enough and every track one box, those do; else the overlaps' sum is largest.
    """
    overlaps = box_iou(xyxy, tracked)
    if not overlaps.size:
        return []
    enough = overlaps > min_iou
    if enough.sum(axis=0).max() == 1 and enough.sum(axis=1).max() == 1:
        rows, columns = np.nonzero(enough)
    else:
        rows, columns = linear_sum_assignment(overlaps, maximize=True)
    return [
        (int(row), int(column)) for row, column in zip(rows, columns, strict=True) if overlaps[row, column] >= min_iou
    ]
