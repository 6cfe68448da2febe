"""Images with masks, as every format of masks is read, and which of them cannot be used.

A mask lies in the pixels of its image as it is shown (turned as its EXIF orientation says).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kinglet.data.annotations.boxes import Finding
from kinglet.data.annotations.image_files import ImageSize
from kinglet.data.masks.faults import ALL_VOID, OTHER_SIZE, UnusableMaskError


@dataclass(frozen=True)
class MaskedImage:
    """One image and where its mask comes from.

    path: relative to the data set's folder, with forward slashes. width, height: in pixels, as shown; 0 where the
    image cannot be read. drawn_from: what `MaskedSet.masks` draws the mask from. pixels: of each class. void: pixels
    without a class. split: train, validation or test where the set says so, else "". problem: why there is no mask, ""
    if there is one. fault: the same as one of `faults.FAULTS`.
    """

    path: str
    width: int
    height: int
    drawn_from: Any
    pixels: tuple[int, ...] = ()
    void: int = 0
    split: str = ""
    problem: str = ""
    fault: str = ""


class Masks(Protocol):
    """What draws masks; picklable, since that is done in other processes."""

    def draw(self, image: MaskedImage) -> NDArray[np.uint8]:
        """Return the index of the class of every pixel, 255 where it has none, uint8 (height, width)."""
        ...

    def without(self, names: Sequence[str]) -> Masks:
        """Return what draws the same with the pixels of these classes void, the others keeping their order."""
        ...


@dataclass(frozen=True)
class MaskedSet:
    """A data set for segmentation.

    images: sorted by path. classes: in the order of their index in the masks; every one has a pixel.
    unmasked: images that have no mask and are no part of it. dropped: what else was left out. notes: what was assumed
    of the whole set.
    """

    format: str
    images: tuple[MaskedImage, ...]
    classes: tuple[str, ...]
    masks: Masks
    unmasked: tuple[str, ...] = ()
    dropped: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


def as_shown(mask: NDArray[np.uint8], size: ImageSize) -> NDArray[np.uint8]:
    """Return a mask turned as its image is shown.

    mask: uint8 (height, width), drawn on the image as shown or, where its size says so, as stored.
    Raises UnusableMaskError for a mask of another size.
    """
    height, width = mask.shape
    if (width, height) == size.shown:
        return mask
    if (width, height) != size.stored:
        shown = f"{size.shown[0]} x {size.shown[1]}"
        raise UnusableMaskError(f"has {width} x {height} pixels, its image {shown}", OTHER_SIZE)
    return np.ascontiguousarray(turned(mask, size.orientation))


def turned(mask: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return pixels as stored, (height, width), as they are shown; orientation: the EXIF tag, 1 to 8.

    Source: CIPA DC-008 (Exif 3.0), tag Orientation.
    """
    quarter_turns = {3: 2, 6: -1, 7: 2, 8: 1}.get(orientation, 0)
    upright = np.rot90({2: mask[:, ::-1], 4: mask[::-1]}.get(orientation, mask), quarter_turns)
    return upright.T if orientation in (5, 7) else upright


def without_classes(found: MaskedSet, names: Sequence[str]) -> MaskedSet:
    """Return the set in which the pixels of these classes are void; images of nothing else have no usable mask then."""
    kept = [index for index, name in enumerate(found.classes) if name not in names]
    images = tuple(_of_classes(image, kept) for image in found.images)
    classes = tuple(found.classes[index] for index in kept)
    return replace(found, images=images, classes=classes, masks=found.masks.without(names))


def _of_classes(image: MaskedImage, kept: list[int]) -> MaskedImage:
    if image.problem:
        return image
    pixels = tuple(image.pixels[index] for index in kept)
    return checked(replace(image, pixels=pixels, void=image.void + sum(image.pixels) - sum(pixels)))


def checked(image: MaskedImage) -> MaskedImage:
    """Return the image; with a problem if no pixel of its mask has a class."""
    if sum(image.pixels):
        return image
    return replace(image, pixels=(), problem="its mask is void everywhere", fault=ALL_VOID)


def used_only(found: MaskedSet) -> MaskedSet:
    """Return the set without the classes that no usable mask shows, and with a note that names them."""
    shown = {index for image in found.images for index, count in enumerate(image.pixels) if count}
    empty = [name for index, name in enumerate(found.classes) if index not in shown]
    if not empty:
        return found
    note = f"classes without a pixel are left out: {', '.join(empty)}"
    return replace(without_classes(found, empty), notes=(*found.notes, note))
