"""Data sets with a mask file for each image: index, binary and colour masks, in folders or beside their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from kinglet.data.annotations.boxes import Finding
from kinglet.data.annotations.image_files import ImageFiles, ImageSize, UnusableImageError, split_in
from kinglet.data.annotations.mask_pairs import MaskPairs, pair_masks
from kinglet.data.annotations.voc import splits_of
from kinglet.data.masks.class_table import find_class_table
from kinglet.data.masks.coding import Coding, code_in_words, coding_of_numbers, coding_of_table
from kinglet.data.masks.faults import UnusableMaskError
from kinglet.data.masks.masked_images import MaskedImage, MaskedSet, as_shown, checked, used_only
from kinglet.data.masks.stored_masks import StoredMask, read_stored_mask
from kinglet.errors import KingletError

COLORS_SHOWN = 5


@dataclass(frozen=True)
class MaskFiles:
    """Draws masks out of files. An image is drawn from (path of its mask, size of the image)."""

    root: str
    coding: Coding
    max_pixels: int

    def stored(self, path: str) -> StoredMask:
        """Return the mask in a file as stored; raises UnusableMaskError if it cannot be read."""
        try:
            content = Path(self.root, path).read_bytes()
        except OSError as error:
            raise UnusableMaskError(f"cannot be read: {error.strerror or error}") from None
        return read_stored_mask(content, self.max_pixels, by_color=self.coding.by_color)

    def draw(self, image: MaskedImage) -> NDArray[np.uint8]:
        """Return the mask of an image; see `Masks.draw`."""
        path, size = image.drawn_from
        return as_shown(self.coding.encode(self.stored(path)), size)

    def without(self, names: Sequence[str]) -> MaskFiles:
        """Return what draws the same without these classes; see `Masks.without`."""
        return replace(self, coding=self.coding.without(names))


@dataclass(frozen=True)
class _Held:
    """What one mask file was found to hold: pixels of each code."""

    counts: dict[int, int]
    is_colored: bool


def read_mask_files(root: Path, paths: list[str], max_pixels: int) -> MaskedSet | None:
    """Return the data set of all images below `root` that have a mask file; None if none has.

    paths: of all files, relative, with forward slashes. max_pixels: largest width x height of a mask. Every mask is
    read, and each that cannot be used is given as the problem of its image.
    Raises KingletError for masks that are no data set: two for one image, colours that no table explains.
    """
    pairs = pair_masks(paths)
    if not pairs.masks:
        return None
    table = find_class_table(root, paths)
    coding = coding_of_table(table) if table else None
    files, masks = ImageFiles(root, paths), MaskFiles(str(root), coding or Coding((), {}, {}, False), max_pixels)
    held: dict[str, _Held] = {}
    images = {path: _examine(path, mask, files, masks, held) for path, mask in pairs.masks.items()}
    if coding is None:
        refuse_colors(pairs, held)
        coding = coding_of_numbers(number for found in held.values() for number in found.counts)
        masks = replace(masks, coding=coding)
    given = splits_of(root, paths, "Segmentation")
    found = MaskedSet(
        "masks",
        tuple(
            _counted(replace(image, split=given.get(PurePosixPath(path).stem) or split_in(path)), held, masks)
            for path, image in images.items()
        ),
        coding.classes,
        masks,
        unmasked=pairs.without_mask,
        dropped=tuple(Finding(mask, "no image is called like this mask") for mask in pairs.without_image),
        notes=(f"classes are read from {table.file}",) if table else (),
    )
    return used_only(found)


def _examine(path: str, mask: str, files: ImageFiles, masks: MaskFiles, held: dict[str, _Held]) -> MaskedImage:
    """Return an image without counts, and note in `held` what its mask holds."""
    try:
        size = files.size(path)
    except UnusableImageError as error:
        return MaskedImage(path, 0, 0, (mask, ImageSize((0, 0))), problem=str(error))
    image = MaskedImage(path, *size.shown, (mask, size))
    try:
        stored = masks.stored(mask)
        as_shown(np.broadcast_to(np.uint8(0), stored.codes.shape), size)
    except UnusableMaskError as error:
        return _faulty(image, error)
    held[path] = _Held(stored.counts(), stored.is_colored)
    return image


def _counted(image: MaskedImage, held: dict[str, _Held], masks: MaskFiles) -> MaskedImage:
    """Return an image with the pixels of each class, or with what is wrong with its mask."""
    if image.problem:
        return image
    found, coding = held[image.path], masks.coding
    known = coding.of_color if found.is_colored else coding.of_number
    if not found.counts.keys() <= known.keys():
        try:
            masks.draw(image)
        except UnusableMaskError as error:
            return _faulty(image, error)
    pixels, void = coding.index_counts(found.counts, found.is_colored)
    return checked(replace(image, pixels=tuple(pixels.tolist()), void=void))


def _faulty(image: MaskedImage, error: UnusableMaskError) -> MaskedImage:
    return replace(image, problem=f"its mask {image.drawn_from[0]} {error}", fault=error.fault)


def refuse_colors(pairs: MaskPairs, held: dict[str, _Held]) -> None:
    """Raise KingletError if masks hold colours: no table says what they mean."""
    colored = next((path for path, found in held.items() if found.is_colored), None)
    if colored is None:
        return
    counts = held[colored].counts
    common = sorted(counts, key=lambda code: (-counts[code], code))[:COLORS_SHOWN]
    shown = [code_in_words(code, True).removeprefix("the colour ") for code in common]
    shown += ["..."] if len(counts) > len(common) else []
    raise KingletError(
        f"{pairs.masks[colored]} is a mask of {len(counts)} colours ({', '.join(shown)}), and no table says what they "
        "mean.",
        "Add classes.csv with the columns name, r, g, b to the folder of the data set.",
    )
