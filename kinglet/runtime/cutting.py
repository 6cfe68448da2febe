"""Where clips lie in a video: so many frames, so many of them a second, spread evenly and without overlap.

Frames are taken by their times: the frame of a moment is the one that is shown then. A variable frame rate therefore
changes nothing, and motion is as fast in every clip as it was before the camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.videos import ROUNDING_SECONDS

# Slower, and motion is lost between two frames.
LOWEST_RATE = 5.0
# Of the videos, those that may be shorter than a clip where its rate is to be found.
SHARE_TOO_SHORT = 0.02
# Clips of one video resemble each other: more of them cost time and teach little.
MOST_PER_VIDEO = 4

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Cutting:
    """How clips are cut. frames: of a clip. rate: frames per second. per_video: the most clips of one video."""

    frames: int
    rate: float
    per_video: int

    @property
    def seconds(self) -> float:
        """From the first frame of a clip to its last."""
        return (self.frames - 1) / self.rate


def chosen_cutting(parts: Sequence[Seconds], frames: int, rate: float | None, per_video: int | None) -> Cutting:
    """Return how clips are cut out of videos of these lengths.

    parts: the times of each video's frames, or of the part of it that has a class, ascending; one at least has two
    frames. rate: None for the one at which a clip covers what all but the shortest videos have, between 5 and the
    videos' own. per_video: None for as many as the usual video has room for, at most 4.
    Raises ValueError if no video has two frames.
    """
    moving = [part for part in parts if len(part) > 1]
    if not moving:
        raise ValueError("no video has two frames")
    lengths = np.array([part[-1] - part[0] for part in moving])
    own = float(np.median([(len(part) - 1) / (part[-1] - part[0]) for part in moving]))
    if rate is None:
        covering = (frames - 1) / float(np.quantile(lengths, SHARE_TOO_SHORT, method="lower"))
        rate = min(max(covering, LOWEST_RATE), own)
    if per_video is None:
        room = int((float(np.median(lengths)) + 1 / rate + ROUNDING_SECONDS) / (frames / rate))
        per_video = min(max(room, 1), MOST_PER_VIDEO)
    return Cutting(frames, rate, per_video)


def cut(part: Seconds, cutting: Cutting) -> list[NDArray[np.int64]]:
    """Return the places in `part` of the frames of each clip, int64 (frames,), ascending; none if it is too short.

    part: the times of a video's frames, or of the part of it that clips may lie in.
    """
    length, step = float(part[-1] - part[0]) if len(part) else -1.0, 1 / cutting.rate
    if length < cutting.seconds - ROUNDING_SECONDS:
        return []
    # A clip's last frame is shown for a step as well.
    count = min(int((length + step + ROUNDING_SECONDS) / (cutting.frames * step)), cutting.per_video)
    count = max(count, 1)
    spare = max(0.0, length - (count * cutting.frames - 1) * step)
    places = []
    for number in range(count):
        start = part[0] + spare * (number + 1) / (count + 1) + number * cutting.frames * step
        # From a frame on: steps as long as the video's own then meet every frame once.
        start = part[shown_at(part, np.array([start]))[0]]
        places.append(shown_at(part, start + np.arange(cutting.frames) * step))
    return places


def shown_at(part: Seconds, moments: Seconds) -> NDArray[np.int64]:
    """Return the place of the frame that is shown at each moment: the last that is not later, or the first."""
    found = np.searchsorted(part, moments + ROUNDING_SECONDS, side="right") - 1
    return np.maximum(found, 0).astype(np.int64)
