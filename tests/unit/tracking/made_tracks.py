"""Two objects over five frames, and tracks with one slip of each kind, whose scores can be reckoned by hand."""

from __future__ import annotations

import math

import numpy as np

from kinglet.tracking.tracks import Tracks, tracks_of

LEFT, RIGHT, ELSEWHERE = [0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 60, 60]

# Of 10 boxes 9 are found, 1 is missed, 1 box is false, and the left object changes from 7 to 8: 1 - 3 / 10.
MOTA = 0.7
# At best, 7 is the left object for 3 frames and 9 the right one for 4: 2 * 7 of 10 true and 10 found boxes.
IDF1 = 0.7
# Detection 9 / 11. Association: 3 times 3/5, 2 times 2/5, 4 times 4/5, over 9. Overlaps are whole, whatever is asked.
HOTA = math.sqrt(9 / 11 * (3 * 0.6 + 2 * 0.4 + 4 * 0.8) / 9)


def truth() -> Tracks:
    """Return both objects, which stand still."""
    frames = np.repeat(np.arange(1, 6), 2)
    return tracks_of(frames, np.tile([1, 2], 5), np.tile([LEFT, RIGHT], (5, 1)))


def tracks() -> Tracks:
    """Return tracks that lose the right object in the last frame, and have a false box in the second."""
    left = [(frame, 7 if frame <= 3 else 8, LEFT) for frame in range(1, 6)]
    right = [(frame, 9, RIGHT) for frame in range(1, 5)]
    frames, ids, boxes = zip(*left, *right, (2, 5, ELSEWHERE), strict=True)
    return tracks_of(frames, ids, boxes)
