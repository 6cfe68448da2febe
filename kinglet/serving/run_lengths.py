"""A region of an image as COCO writes it: the lengths of its runs, column by column, packed into a short text.

Source: COCO API, maskApi.c, rleEncode and rleToString.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def run_lengths(region: NDArray[np.bool_]) -> list[int]:
    """Return the lengths of runs outside and inside the region in turn, first outside, column by column.

    region: bool (height, width).
    """
    flat = region.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    ends = np.concatenate([[0], changes, [flat.size]])
    lengths: list[int] = np.diff(ends).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths


def as_text(lengths: list[int]) -> str:
    """Return run lengths as COCO's text: from the fourth on each as the difference to that two before it.

    Every number stands in groups of five bits, the lowest first, each with a sixth that says whether more follow.
    """
    characters = []
    for place, length in enumerate(lengths):
        rest = length - lengths[place - 2] if place > 2 else length
        while True:
            group, rest = rest & 31, rest >> 5
            is_last = rest == (-1 if group & 16 else 0)
            characters.append(chr(group + (0 if is_last else 32) + 48))
            if is_last:
                break
    return "".join(characters)
