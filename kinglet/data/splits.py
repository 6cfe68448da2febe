"""Train, validation, test and sealed by content: an image's side follows from its pixels, the seed and nothing else.

Every image gets a number in [0, 1) from the hash of its pixels, and its side from where that number
falls: test, then validation, then train, then sealed. No quota is filled and no list is shuffled, so an image keeps
its side whatever is added or removed around it. Since the number knows nothing of the class, every
class gets the same shares, up to chance. Two things can move an image all the same, and both are rare:

- Near-duplicates and images of one group stay together. A named group's number comes from its name, which
  does not change. A set of near-duplicates takes the number of its smallest hash: when another
  near-duplicate joins k images, its hash is the smallest once in k + 1 times, and the set may then move,
  as a whole. (The alternative, "held out if any member is", never moves an image into training, but
  puts nearly every large set of near-duplicates, a video's frames for one, into the test part.)
- A class that chance left without an image in a part borrows one from the part where it has most, the one
  with the smallest number, for as long as it has no own one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SPLITS = ("train", "validation", "test")
# A second test part, kept back for releases; there is none unless it is asked for.
SEALED = "sealed"
# Of a target domain, whose images are in none of the others: what models are adapted with, and what judges that.
ADAPTATION, TARGET_TEST = "adaptation", "target_test"
# Fewer say nothing: of statistics and of scores.
FEWEST_TO_ADAPT, FEWEST_TO_JUDGE = 16, 20


@dataclass(frozen=True)
class ShownClasses:
    """What each of n images shows.

    names: of the classes, in the order of their index. occurrences: int64 (n, n_classes), how often an image shows a
    class. label_index: int64 (n,), the class of an image that has exactly one, -1 for one with boxes or a mask.
    """

    names: list[str]
    occurrences: NDArray[np.int64]
    label_index: NDArray[np.int64]

    @property
    def shown(self) -> NDArray[np.bool_]:
        """Whether an image shows a class, shape (n, n_classes)."""
        return self.occurrences > 0


def one_class_each(labels: NDArray[np.object_]) -> ShownClasses:
    """Return what images show that have one class each, str of shape (n,)."""
    names = sorted(set(labels.tolist()))
    number = {label: position for position, label in enumerate(names)}
    index = np.array([number[label] for label in labels], np.int64)
    occurrences = (index[:, None] == np.arange(len(names))).astype(np.int64)
    return ShownClasses(names, occurrences, index)


def any_number_each(labels: Sequence[Sequence[str]]) -> ShownClasses:
    """Return what images show that have boxes; labels: those of each image's boxes, none or many."""
    names = sorted({label for of_image in labels for label in of_image})
    number = {label: position for position, label in enumerate(names)}
    occurrences = np.zeros((len(labels), len(names)), np.int64)
    for row, of_image in enumerate(labels):
        for label in of_image:
            occurrences[row, number[label]] += 1
    return ShownClasses(names, occurrences, np.full(len(labels), -1, np.int64))


def in_every_pixel(names: Sequence[str], pixels: NDArray[np.int64]) -> ShownClasses:
    """Return what images show that have masks; pixels: of each class in each image, int64 (n, n_classes)."""
    return ShownClasses(list(names), pixels, np.full(len(pixels), -1, np.int64))


def unit_hash(key: str, seed: int) -> float:
    """Return a number in [0, 1), evenly distributed over keys, independent between seeds."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def components(near_groups: NDArray[np.int64], groups: NDArray[np.object_]) -> NDArray[np.int64]:
    """Return for each image the number of the set it must stay with, shape (n,), numbered from 0.

    near_groups: images with the same number are near-duplicates. groups: str, images with the same name
    belong together, "" belongs to nobody.
    """
    n_images = len(groups)
    _, near = np.unique(near_groups, return_inverse=True)
    names, named = np.unique(groups.astype(str), return_inverse=True)
    has_name = names[named] != "" if n_images else np.empty(0, bool)
    n_near = int(near.max(initial=-1)) + 1
    # A graph whose nodes are the images, the sets of near-duplicates and the groups.
    rows = np.arange(n_images)
    left = np.concatenate([rows, rows[has_name]])
    right = np.concatenate([n_images + near, n_images + n_near + named[has_name]])
    size = n_images + n_near + len(names)
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
    _, found = connected_components(graph, directed=False)
    _, numbered = np.unique(found[:n_images], return_inverse=True)
    return numbered.astype(np.int64)


def positions(
    pixels_sha256: NDArray[np.object_], groups: NDArray[np.object_], component: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Return the number in [0, 1) of each component: from its smallest group name, else its smallest hash."""
    keys: dict[int, tuple[int, str]] = {}
    for number, name, pixels in zip(component.tolist(), groups, pixels_sha256, strict=True):
        key = (0, f"group:{name}") if name else (1, pixels)
        keys[number] = min(keys.get(number, key), key)
    return np.array([unit_hash(keys[number][1], seed) for number in range(len(keys))])


def assign_splits(
    pixels_sha256: NDArray[np.object_],
    shown: NDArray[np.bool_],
    groups: NDArray[np.object_],
    near_groups: NDArray[np.int64],
    given: NDArray[np.object_],
    *,
    validation: float,
    test: float,
    seed: int,
    sealed: float = 0.0,
) -> NDArray[np.object_]:
    """Return "train", "validation", "test" or "sealed" for each image, shape (n,).

    All arrays have shape (n,), of str but near_groups (int64) and shown, bool (n, n_classes): which image shows which
    class. given: the part that the set brings, ""
    if none. Parts that the set brings are kept as they are and nothing is added to them: if it brings a
    test part only, `validation` is the share of the other images that validation takes. sealed: share of the
    images that are kept back, those with the highest numbers, so that other shares do not move them; taken
    from the training part where the set brings others. Every class
    has an image in every part if that is possible; see `missing_classes`.
    """
    component = components(near_groups, groups)
    number = positions(pixels_sha256, groups, component, seed)
    brought = set(given.tolist()) - {""}
    brings_parts = bool(brought - {"train"})
    open_parts = [name for name in ("test", "validation") if not brings_parts or name not in brought]
    open_parts += [SEALED] if sealed else []
    side = np.full(len(number), "train", dtype=object)
    # The intervals stay where they are when the set brings a part: seed and share mean the same with and without.
    if "test" in open_parts:
        side[number < test] = "test"
    if "validation" in open_parts:
        side[(number >= test) & (number < test + validation)] = "validation"
    if sealed:
        side[number >= 1 - sealed] = SEALED
    fixed = np.isin(given, ["validation", "test"]) if brings_parts else np.zeros(len(given), bool)
    borrow(side, number, component, shown, fixed, open_parts)
    assigned = side[component]
    assigned[fixed] = given[fixed]
    if brings_parts:
        follow_given(assigned, component, given)
    return np.asarray(assigned, dtype=object)


def follow_given(assigned: NDArray[np.object_], component: NDArray[np.int64], given: NDArray[np.object_]) -> None:
    """Put images without a given part beside held-out members of their component, in place."""
    for part in ("validation", "test"):
        assigned[np.isin(component, component[given == part]) & (given == "")] = part


def target_parts(
    pixels_sha256: NDArray[np.object_],
    groups: NDArray[np.object_],
    near_groups: NDArray[np.int64],
    given: NDArray[np.object_],
    is_target: NDArray[np.bool_],
    *,
    held_out: float,
    seed: int,
) -> NDArray[np.object_]:
    """Return "adaptation" or "target_test" for each image of a target domain, shape (n_target,), in their order.

    The arrays are of all images, shape (n,), as for `assign_splits`; is_target: bool. held_out: share of the target's
    images that judge; where the set brings test images of the target, those do. What belongs together stays together,
    and what belongs together with an image of another domain, from which a model may have learnt, judges nothing.
    """
    component = components(near_groups, groups)
    brought = is_target & (given == "test")
    if brought.any():
        judges = np.isin(component, component[brought])
    else:
        judges = (positions(pixels_sha256, groups, component, seed) < held_out)[component]
    judges &= ~np.isin(component, component[~is_target])
    return np.where(judges, TARGET_TEST, ADAPTATION).astype(object)[is_target]


def borrow(
    side: NDArray[np.object_],
    number: NDArray[np.float64],
    component: NDArray[np.int64],
    shown: NDArray[np.bool_],
    fixed: NDArray[np.bool_],
    open_parts: list[str],
) -> None:
    """Move one component into each part in which a class has no image, from where it has most, two or more; in place.

    side, number: by component. component, shown (image by class), fixed (the set itself says where it belongs): by
    image.
    """
    for of_class in shown.T:
        own = np.unique(component[of_class & ~fixed])
        for part in (*open_parts, "train"):
            if (side[own] == part).any():
                continue
            donor = max(("train", *open_parts), key=lambda name: int((side[own] == name).sum()))
            spare = own[side[own] == donor]
            if len(spare) >= 2:
                side[spare[np.argmin(number[spare])]] = part


def missing_classes(
    classes: ShownClasses, assigned: NDArray[np.object_], parts: tuple[str, ...] = SPLITS
) -> list[tuple[str, str, int]]:
    """Return (class, part, images of the class) for every class that has no image in one of the parts, sorted."""
    return [
        (label, part, int(of_class.sum()))
        for label, of_class in zip(classes.names, classes.shown.T, strict=True)
        for part in parts
        if not of_class[assigned == part].any()
    ]


def split_counts(
    classes: ShownClasses, assigned: NDArray[np.object_], parts: tuple[str, ...] = SPLITS
) -> dict[str, dict[str, int]]:
    """Return {part: {class: how often it occurs}}, all parts and classes named."""
    return {
        part: dict(zip(classes.names, map(int, classes.occurrences[assigned == part].sum(axis=0)), strict=True))
        for part in parts
    }
