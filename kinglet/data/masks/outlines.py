"""Masks out of the outlines in COCO's JSON files: polygons and run lengths, drawn by pycocotools.

Pixels that no outline covers are background. Where outlines overlap, the smaller one lies on top.
Source: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_masks

from kinglet.data.annotations.boxes import Findings
from kinglet.data.annotations.coco import CocoImage, categories_of, coco_files, images_of, label_of, refuse_second
from kinglet.data.annotations.image_files import ImageFiles
from kinglet.data.masks.coding import BACKGROUND, MOST_CLASSES
from kinglet.data.masks.faults import VOID
from kinglet.data.masks.masked_images import MaskedImage, MaskedSet, as_shown, checked, used_only
from kinglet.errors import KingletError

# Run lengths as pycocotools writes them: {"size": [height, width], "counts": bytes}.
RunLengths = dict[str, Any]


@dataclass(frozen=True)
class Outlines:
    """Draws masks out of outlines. An image is drawn from (outlines as (class, run lengths), annotated size, size).

    index: of each class, VOID for one that is left out.
    """

    index: dict[str, int]

    def draw(self, image: MaskedImage) -> NDArray[np.uint8]:
        """Return the mask of an image; see `Masks.draw`."""
        outlines, (width, height), size = image.drawn_from
        mask = np.full((height, width), self.index[BACKGROUND], np.uint8)
        # Of equally large ones, the last of the file lies on top: the order of a sort stays.
        for label, runs in sorted(outlines, key=lambda outline: -int(coco_masks.area(outline[1]))):
            mask[coco_masks.decode(runs).astype(bool)] = self.index[label]
        return as_shown(mask, size)

    def without(self, names: Sequence[str]) -> Outlines:
        """Return what draws the same without these classes; see `Masks.without`."""
        kept = [name for name, index in sorted(self.index.items(), key=lambda item: item[1]) if index != VOID]
        kept = [name for name in kept if name not in names]
        return Outlines({name: kept.index(name) if name in kept else VOID for name in self.index})


def read_outlines(root: Path, paths: list[str]) -> MaskedSet | None:
    """Return the data set of all COCO files below `root`; None if there is none or none holds an outline.

    paths: of all files, relative, with forward slashes.
    Raises KingletError, with file and line or index, for a file whose parts contradict each other.
    """
    findings, files = Findings(), ImageFiles(root, paths)
    found: dict[str, tuple[str, MaskedImage]] = {}
    classes: dict[str, None] = {BACKGROUND: None}
    for path, content in coco_files(root, paths):
        names = categories_of(content["categories"], path)
        classes |= dict.fromkeys(names.values())
        for item in images_of(content, path, files, findings):
            refuse_second(path, item.path, found.get(item.path, (None,))[0])
            found[item.path] = (path, _with_outlines(item, names, findings))
    if not any(image.drawn_from[0] for _, image in found.values()):
        return None
    if len(classes) > MOST_CLASSES:
        raise KingletError(f"{root} has {len(classes)} categories; at most {MOST_CLASSES} can be learned.")
    masks = Outlines({name: index for index, name in enumerate(classes)})
    return used_only(
        MaskedSet(
            "COCO JSON",
            tuple(_counted(found[path][1], masks) for path in sorted(found)),
            tuple(classes),
            masks,
            unmasked=tuple(path for path in files.paths if path not in found),
            dropped=tuple(findings.dropped),
            notes=("pixels that no outline covers are background; of outlines that overlap, the smaller is on top",),
        )
    )


def _with_outlines(item: CocoImage, names: dict[Any, str], findings: Findings) -> MaskedImage:
    outlines = []
    for place, entry in item.annotations:
        label = label_of(entry, place, names, findings)
        runs = run_lengths(entry.get("segmentation"), item.annotated, place, findings) if label else None
        if runs is not None:
            outlines.append((label, runs))
    return MaskedImage(item.path, *item.size.shown, (outlines, item.annotated, item.size), split=item.split)


def run_lengths(given: Any, size: tuple[int, int], place: str, findings: Findings) -> RunLengths | None:
    """Return an outline as run lengths; None, with the reason noted, if it is none or covers no pixel.

    given: polygons, lists of x and y in pixels, or run lengths, as a list of numbers or as COCO's text. size: width
    and height of the image in pixels.
    """
    width, height = size
    if not given:
        findings.drop(place, "it has no outline")
        return None
    if isinstance(given, dict) and given.get("size") != [height, width]:
        findings.drop(
            place, f"its run lengths are of {given.get('size')}, the image's height and width {[height, width]}"
        )
        return None
    if isinstance(given, dict) and isinstance(given.get("counts"), list) and sum(given["counts"]) != width * height:
        findings.drop(place, f"its run lengths add up to {sum(given['counts'])} and not to {width * height} pixels")
        return None
    if isinstance(given, list) and not all(map(_is_polygon, given)):
        findings.drop(place, "its outline is no list of polygons, each of three points or more")
        return None
    try:
        runs = _drawn(given, width, height)
        covers = bool(coco_masks.decode(runs).any())
    except Exception as error:  # noqa: BLE001 - pycocotools raises whatever its C code makes of bad input
        findings.drop(place, f"its outline cannot be drawn: {error}")
        return None
    if not covers:
        findings.drop(place, "its outline covers no pixel")
        return None
    return runs


def _drawn(given: Any, width: int, height: int) -> RunLengths:
    """Return polygons, or run lengths in either form, as pycocotools writes run lengths."""
    if isinstance(given, dict) and isinstance(given["counts"], str):
        return {"size": given["size"], "counts": given["counts"].encode()}
    drawn = coco_masks.frPyObjects(given, height, width)
    merged: RunLengths = coco_masks.merge(drawn) if isinstance(drawn, list) else drawn
    return merged


def _is_polygon(points: Any) -> bool:
    numbers = isinstance(points, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value) for value in points
    )
    return numbers and len(points) >= 6 and len(points) % 2 == 0


def _counted(image: MaskedImage, masks: Outlines) -> MaskedImage:
    """Return an image with the pixels of each class."""
    pixels = np.bincount(masks.draw(image).ravel(), minlength=len(masks.index))
    return checked(replace(image, pixels=tuple(pixels.tolist())))
