"""Clips as pictures of a page: a few of their frames side by side, where other pages show an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Frames of a strip, spread over the clip, and the gap between two of them in pixels.
SHOWN_FRAMES, GAP = 5, 2


class Strips:
    """Packed clips, uint8 (n, n_frames, size, size, channels), of which an index gives a strip and not a clip."""

    def __init__(self, clips: NDArray[np.uint8]) -> None:
        self._clips = clips
        self.shape = (len(clips), *clips.shape[2:])

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Return frames of a clip from its first to its last, uint8 (size, width, channels), white between them."""
        clip = self._clips[row]
        places = np.linspace(0, len(clip) - 1, min(SHOWN_FRAMES, len(clip))).round().astype(int)
        size, channels = clip.shape[1], clip.shape[3]
        gap = np.full((size, GAP, channels), 255, np.uint8)
        parts = [part for place in places.tolist() for part in (gap, clip[place])]
        return np.concatenate(parts[1:], axis=1)
