"""Images that occur more than once: exactly, or so nearly that they count as the same picture.

Near-duplicates are searched in two steps: pairs whose perceptual hashes differ in few bits, then, of
these, pairs whose pixels agree. The hash alone merges a set of similar, simple pictures (clothes on
black, for one) into a few huge groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kinglet.data.statistics import thumbnails

HASH_BITS = 64
PAIRS_AT_ONCE = 1 << 22
COMPARED_AT_ONCE = 1 << 13

# Largest difference of two near-duplicates, as a share of the picture's own variation. JPEG at quality
# 50 and halving the resolution stay below 0.1; two different shirts of one kind lie above 0.2.
MAX_DIFFERENCE = 0.1

# Below this standard deviation, of luma in [0, 1], a picture is blank: its hash is noise.
BLANK_CONTRAST = 0.01


def exact_groups(pixels_sha256: NDArray[np.object_]) -> NDArray[np.int64]:
    """Return for each image the smallest index among those with the same pixels, its own if it is alone.

    pixels_sha256: array of str of shape (n,); "" (undecodable) is equal to nothing.
    """
    first: dict[str, int] = {}
    return np.array(
        [first.setdefault(value, index) if value else index for index, value in enumerate(pixels_sha256)], np.int64
    )


def near_groups(
    hashes: NDArray[np.uint64],
    exact: NDArray[np.int64],
    usable: NDArray[np.bool_],
    max_distance: int,
    gray_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
) -> NDArray[np.int64]:
    """Return for each image the smallest index among its near-duplicates, its own if it has none.

    hashes: uint64 of shape (n,). exact: what `exact_groups` returned; exact duplicates are near ones
    too. usable: bool of shape (n,), false for images without a picture (undecodable, blank), which
    have no near-duplicates. max_distance: differing bits of the hashes that still make a candidate.
    gray_of: luma of shape (m, edge, edge) for m given indices. Being near is passed on: a and c share
    a group if both are near b.
    """
    n_images = len(hashes)
    rows = np.flatnonzero(usable & (exact == np.arange(n_images)))
    pairs = close_pairs(hashes[rows], max_distance)
    pairs = rows[pairs]
    return joined(pairs[pixels_agree(pairs, gray_of)] if len(pairs) else pairs, exact)


def joined(pairs: NDArray[np.int64], exact: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each image the smallest index among those that pairs (n_pairs, 2) or equality join it with.

    exact: what `exact_groups` returned.
    """
    n_images = len(exact)
    edges = np.concatenate([pairs, np.stack([exact, np.arange(n_images)], axis=1)])
    graph = coo_array((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(n_images, n_images))
    _, component = connected_components(graph, directed=False)
    smallest = np.full(component.max(initial=-1) + 1, n_images, np.int64)
    np.minimum.at(smallest, component, np.arange(n_images))
    return smallest[component]


def close_pairs(hashes: NDArray[np.uint64], max_distance: int) -> NDArray[np.int64]:
    """Return all pairs (i < j) of hashes that differ in at most `max_distance` bits, shape (n_pairs, 2), sorted.

    The 64 bits are cut into max_distance + 1 bands: two hashes that differ in fewer bits than there
    are bands agree on at least one band, so only hashes that share a band are compared.
    Source: Norouzi et al. 2012, "Fast search in Hamming space with multi-index hashing".
    """
    found = []
    limits = np.linspace(0, HASH_BITS, max_distance + 2).astype(int)
    for low, high in pairwise(limits.tolist()):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        for left, right in pairs_with_equal(band):
            near = np.bitwise_count(hashes[left] ^ hashes[right]) <= max_distance
            found.append(np.stack([left[near], right[near]], axis=1))
    pairs = np.concatenate(found) if found else np.empty((0, 2), np.int64)
    pairs.sort(axis=1)
    return np.unique(pairs, axis=0)


def pairs_with_equal(values: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield, a bounded number at a time, all pairs of positions that hold the same value."""
    order = np.argsort(values, kind="stable")
    _, starts, counts = np.unique(values[order], return_index=True, return_counts=True)
    # Each sorted position is paired with the `partners` ones after it in its run of equal values.
    ends = np.repeat(starts + counts, counts)
    partners = ends - np.arange(len(values)) - 1
    totals = np.cumsum(partners)
    first = 0
    while first < len(values):
        done = totals[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(totals, done + PAIRS_AT_ONCE, side="right")))
        repeats = partners[first:last]
        left = np.repeat(np.arange(first, last), repeats)
        steps = np.arange(len(left)) - np.repeat(np.cumsum(repeats) - repeats, repeats) + 1
        yield order[left], order[left + steps]
        first = last


def pixels_agree(
    pairs: NDArray[np.int64], gray_of: Callable[[NDArray[np.int64]], NDArray[np.float32]]
) -> NDArray[np.bool_]:
    """Return for each pair whether its pictures differ by at most `MAX_DIFFERENCE`; shape (n_pairs,)."""
    agree = np.empty(len(pairs), bool)
    for first in range(0, len(pairs), COMPARED_AT_ONCE):
        part = pairs[first : first + COMPARED_AT_ONCE]
        needed, position = np.unique(part, return_inverse=True)
        pictures = standardized(thumbnails(gray_of(needed)))
        left, right = position.reshape(part.shape).T
        difference = np.sqrt(((pictures[left] - pictures[right]) ** 2).mean(axis=1))
        agree[first : first + len(part)] = difference <= MAX_DIFFERENCE
    return agree


def standardized(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return pictures of shape (n, h, w) as (n, h * w) with mean 0 and standard deviation 1."""
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(flat.std(axis=1, keepdims=True), np.float32(1e-6))
