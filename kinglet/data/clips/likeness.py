"""Clips that are nearly the same: the same frames in the same order, as in a copy that was encoded anew.

A scene looks alike in many clips; what happens in it does not. So two clips are near-duplicates only if the frames of
one resemble those of the other and if what changes from frame to frame is the same as well.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kinglet.data.duplicates import (
    BLANK_CONTRAST,
    COMPARED_AT_ONCE,
    close_pairs,
    joined,
    pixels_agree,
    standardized,
)
from kinglet.data.statistics import perceptual_hash, thumbnails
from kinglet.runtime.image_statistics import luma

# Largest difference of two changes, as a share of their own variation. Those of a copy, encoded anew, lie below 0.4;
# two that have nothing to do with each other differ by 1.4.
MAX_CHANGE_DIFFERENCE = 0.7

# Luma, float32 (m, edge, edge) in [0, 255], of the frames with this number of the given clips.
GrayOf = Callable[[NDArray[np.int64], int], NDArray[np.float32]]


def clip_statistics(clips: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """Return the perceptual hash of every frame, uint64 (n, frames), and the motion in each clip, float64 (n,).

    clips: uint8 (n, frames, size, size, channels). Motion is the mean change of a pixel's luma, in [0, 1], from a frame
    to the next.
    """
    hashes = np.empty(clips.shape[:2], np.uint64)
    motion = np.zeros(len(clips), np.float64)
    for row, frames in enumerate(clips):
        gray = luma(frames)
        hashes[row] = perceptual_hash(gray)
        motion[row] = float(np.abs(np.diff(gray, axis=0)).mean()) / 255
    return hashes, motion


def near_clip_groups(
    hashes: NDArray[np.uint64],
    exact: NDArray[np.int64],
    usable: NDArray[np.bool_],
    max_distance: int,
    gray_of: GrayOf,
) -> NDArray[np.int64]:
    """Return for each clip the smallest index among its near-duplicates, its own if it has none.

    hashes: of every frame, uint64 (n, frames), two at least. exact, usable: as in
    `kinglet.data.duplicates.near_groups`. max_distance: differing bits, in the median, of the hashes of frames at the
    same place; frames at the beginning, in the middle or at the end have to be as near for clips to be compared at all.
    Being near is passed on.
    """
    n_clips, n_frames = hashes.shape
    middle, last = n_frames // 2, n_frames - 1
    rows = np.flatnonzero(usable & (exact == np.arange(n_clips)))
    found = [rows[close_pairs(hashes[rows, number], max_distance)] for number in (0, middle, last)]
    pairs = np.unique(np.concatenate(found), axis=0)
    apart = np.median(np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]), axis=1)
    pairs = pairs[apart <= max_distance]
    for number in (0, middle, last):
        pairs = pairs[pixels_agree(pairs, lambda clips, number=number: gray_of(clips, number))]  # type: ignore[misc]
    for number in (middle, last):
        pairs = pairs[changes_agree(pairs, 0, number, gray_of)]
    return joined(pairs, exact)


def changes_agree(pairs: NDArray[np.int64], before: int, after: int, gray_of: GrayOf) -> NDArray[np.bool_]:
    """Return for each pair of clips whether the same changes between two of their frames; bool (n_pairs,).

    Where nothing changes in either, it is the same.
    """
    agree = np.empty(len(pairs), bool)
    for first in range(0, len(pairs), COMPARED_AT_ONCE):
        part = pairs[first : first + COMPARED_AT_ONCE]
        needed, position = np.unique(part, return_inverse=True)
        changes = thumbnails(gray_of(needed, after) - gray_of(needed, before))
        moves = changes.std(axis=(1, 2)) / 255 >= BLANK_CONTRAST
        pictures = standardized(changes)
        left, right = position.reshape(part.shape).T
        difference = np.sqrt(((pictures[left] - pictures[right]) ** 2).mean(axis=1))
        same = difference <= MAX_CHANGE_DIFFERENCE
        agree[first : first + len(part)] = np.where(moves[left] & moves[right], same, ~moves[left] & ~moves[right])
    return agree
