"""Objects with identities over the frames of one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The class of a box whose file names none.
NO_CLASS = -1


@dataclass(frozen=True)
class Tracks:
    """Boxes with identities, by frame and, in a frame, by identity, both ascending.

    frames: int64 (n,), from 1. ids: int64 (n,), at least 0, no two alike in a frame. xyxy: float64 (n, 4), left, top,
    right, bottom in continuous pixels, the upper left corner of the image being (0, 0). labels: int64 (n,), numbers
    of classes, NO_CLASS where there are none. scores: float64 (n,), how sure the boxes are; 1 in ground truth.
    """

    frames: NDArray[np.int64]
    ids: NDArray[np.int64]
    xyxy: NDArray[np.float64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, kept: NDArray[np.bool_] | NDArray[np.int64]) -> Tracks:
        """Return the boxes at which `kept`, bool (n,), is true; or those at these places, int64."""
        return Tracks(self.frames[kept], self.ids[kept], self.xyxy[kept], self.labels[kept], self.scores[kept])

    def classes_from_one(self) -> Tracks:
        """Return the same boxes with the labels of a model, which count from 0, as the class numbers of a file."""
        return Tracks(self.frames, self.ids, self.xyxy, self.labels + 1, self.scores)

    def without_classes(self) -> Tracks:
        """Return the same boxes with no class, for a comparison that asks for none."""
        return Tracks(self.frames, self.ids, self.xyxy, np.full(len(self), NO_CLASS), self.scores)


def tracks_of(
    frames: Sequence[int] | NDArray[np.int64],
    ids: Sequence[int] | NDArray[np.int64],
    xyxy: Sequence[Sequence[float]] | NDArray[np.float64],
    labels: Sequence[int] | NDArray[np.int64] | None = None,
    scores: Sequence[float] | NDArray[np.float64] | None = None,
) -> Tracks:
    """Return boxes in any order as tracks. labels, scores: none and 1 where absent.

    Raises ValueError for lengths that differ, and for an identity that is twice in a frame.
    """
    n = len(frames)
    given = Tracks(
        np.asarray(frames, np.int64),
        np.asarray(ids, np.int64),
        np.asarray(xyxy, np.float64).reshape(-1, 4),
        np.full(n, NO_CLASS) if labels is None else np.asarray(labels, np.int64),
        np.ones(n) if scores is None else np.asarray(scores, np.float64),
    )
    lengths = [len(column) for column in (given.ids, given.xyxy, given.labels, given.scores)]
    if lengths != [n] * len(lengths):
        raise ValueError(f"{n} frames need as many ids, boxes, labels and scores, got {lengths}")
    found = given.take(np.lexsort((given.ids, given.frames)))
    twice = (np.diff(found.frames) == 0) & (np.diff(found.ids) == 0)
    if twice.any():
        place = int(np.flatnonzero(twice)[0])
        raise ValueError(f"id {found.ids[place]} is twice in frame {found.frames[place]}")
    return found
