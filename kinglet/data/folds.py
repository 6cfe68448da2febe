"""Folds for cross-validation: every class in equal shares, what belongs together in one fold, and by content.

An image's place in its class follows from the hash of its pixels (or of its group's name), and the folds are
consecutive parts of that order. Adding an image therefore moves only the few that lie at the borders of the parts.
scikit-learn's StratifiedGroupKFold balances as well, but draws from a shuffled list: one image more, and all move.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinglet.data.splits import components, positions

# Seeds of params.yaml are below this; so no repetition draws as the split or another repetition does.
SEEDS_PER_REPEAT = 2**32


@dataclass(frozen=True)
class FoldPlan:
    """Where every image of one repetition goes.

    fold: int64 (n,), from 1. draw: float64 (n,) in [0, 1), equal for what belongs together, independent of the
    fold: who needs a part of a fold's training images takes those with a small one.
    """

    fold: NDArray[np.int64]
    draw: NDArray[np.float64]


def plan_folds(
    pixels_sha256: NDArray[np.object_],
    labels: NDArray[np.int64],
    groups: NDArray[np.object_],
    near_groups: NDArray[np.int64],
    *,
    n_folds: int,
    repeat: int,
    seed: int,
) -> FoldPlan:
    """Return the folds of one repetition; images of one group and near-duplicates share a fold.

    pixels_sha256, groups: str (n,), "" for no group. labels: (n,), integers from 0. near_groups: (n,), images with
    the same number are near-duplicates. repeat: from 1; each is another assignment.
    Without groups the numbers of images of a class in any two folds differ by one at the most, and so do the sizes
    of the folds, up to the number of classes. Sets of several images are placed first, the largest first, each in
    the fold where it evens out the classes best; single images fill up what is left.
    Raises ValueError if there are fewer sets that belong together than folds, or fewer than two folds.
    """
    component = components(near_groups, groups)
    n_components = int(component.max(initial=-1)) + 1
    if n_folds < 2 or n_components < n_folds:
        raise ValueError(f"{n_components} independent images do not make {n_folds} folds")
    number = positions(pixels_sha256, groups, component, seed + SEEDS_PER_REPEAT * repeat)
    draw = positions(pixels_sha256, groups, component, -1 - seed - SEEDS_PER_REPEAT * repeat)
    counts = np.zeros((n_components, int(labels.max(initial=0)) + 1), np.int64)
    np.add.at(counts, (component, labels), 1)
    fold = np.full(n_components, -1, np.int64)
    filled = np.zeros((n_folds, counts.shape[1]), np.int64)
    place_sets(fold, filled, counts, number)
    place_single_images(fold, filled, counts, number)
    return FoldPlan(fold[component] + 1, draw[component])


def place_sets(
    fold: NDArray[np.int64], filled: NDArray[np.int64], counts: NDArray[np.int64], number: NDArray[np.float64]
) -> None:
    """Give every set of several images a fold, in place: where the shares of its classes become most even.

    fold: (n_components,). filled: (n_folds, n_classes) images placed so far. counts: (n_components, n_classes).
    """
    sizes, share = counts.sum(axis=1), np.maximum(counts.sum(axis=0), 1)
    several = np.flatnonzero(sizes > 1)
    for one in several[np.lexsort((number[several], -sizes[several]))]:
        own = counts[one] > 0
        # The sum of squares is smallest where all folds have the same share; only the set's own fold changes.
        cost = ((2 * filled[:, own] + counts[one, own]) * counts[one, own] / share[own] ** 2).sum(axis=1)
        # Equal ones: the emptiest, so that no fold stays without images.
        chosen = np.lexsort((filled.sum(axis=1), np.round(cost, 12)))[0]
        fold[one] = chosen
        filled[chosen] += counts[one]


def place_single_images(
    fold: NDArray[np.int64], filled: NDArray[np.int64], counts: NDArray[np.int64], number: NDArray[np.float64]
) -> None:
    """Give every single image a fold, in place: a class in the order of its numbers, part after part."""
    single = counts.sum(axis=1) == 1
    for label in range(counts.shape[1]):
        own = np.flatnonzero(single & (counts[:, label] == 1))
        room = rooms(filled[:, label], len(own), filled.sum(axis=1))
        fold[own[np.argsort(number[own], kind="stable")]] = np.repeat(np.arange(len(room)), room)
        filled[:, label] += room


def rooms(filled: NDArray[np.int64], n_images: int, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many of `n_images` each fold takes so that all hold about as many, int64 (n_folds,).

    filled: images of the class in each fold. sizes: of the folds; odd images go where fewest are.
    """
    level = filled.copy()
    order = np.lexsort((np.arange(len(filled)), sizes))
    left = n_images
    while left:
        lowest = order[level[order] == level.min()]
        above = level[level > level.min()]
        step = int(above.min() - level.min()) if len(above) else left
        step = min(step, left // len(lowest))
        if step:
            level[lowest] += step
            left -= step * len(lowest)
        else:
            level[lowest[:left]] += 1
            left = 0
    return level - filled


def classes_in_one_fold(labels: NDArray[np.int64], fold: NDArray[np.int64]) -> list[int]:
    """Return the classes whose images all lie in one fold, ascending: the model that answers them never saw any."""
    return [int(label) for label in np.unique(labels) if len(np.unique(fold[labels == label])) == 1]
