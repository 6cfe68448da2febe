"""Which mask belongs to which image, by folders and names alone.

Known layouts: a folder of images and one of masks beside it, for the whole set or for each part of a split
(images/ and masks/, train/image and train/label, train/ and train_labels/ or trainannot/, JPEGImages/ and
SegmentationClass/), and masks that lie beside their images with _mask or the like behind the name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath

from kinglet.data.sources.layout import has_image_suffix, is_hidden
from kinglet.data.sources.records import SPLIT_NAMES
from kinglet.errors import KingletError

MASK_FOLDERS = {
    "annotation",
    "annotations",
    "groundtruth",
    "gt",
    "gtfine",
    "label",
    "labels",
    "mask",
    "masks",
    "segmentation",
    "segmentationclass",
}
IMAGE_FOLDERS = {"image", "images", "img", "imgs", "input", "jpegimages", "leftimg8bit", "photos"}
# Of Pascal VOC: numbers of objects, where masks have classes.
NO_CLASSES = "segmentationobject"
# A part of a split with what it holds in one name: train_labels, valannot, test-images.
_PART = re.compile(rf"({'|'.join(SPLIT_NAMES)})[-_ ]?(annot|annotations?|labels?|masks?|gt|images?|imgs?)")
# In a folder of masks, names have endings that mean nothing elsewhere.
_MASK_ENDING = re.compile(r"[-_](?:masks?|labels?|seg|segmentation|gt|l|gtfine_labelids)$", re.IGNORECASE)
_ENDING_BESIDE = re.compile(r"[-_](?:masks?|labels?|seg|segmentation|gt)$", re.IGNORECASE)
_IMAGE_ENDING = re.compile(r"[-_](?:image|img|sat|leftimg8bit)$", re.IGNORECASE)

# Folders, less those that say whether they hold images or masks, and the file's name without its suffix.
_Key = tuple[str, ...]


@dataclass(frozen=True)
class MaskPairs:
    """masks: {image: its mask}, ascending by image. without_mask, without_image: files that have no other one."""

    masks: dict[str, str]
    without_mask: tuple[str, ...]
    without_image: tuple[str, ...]


def pair_masks(paths: list[str]) -> MaskPairs:
    """Return the pairs of images and masks among files; none where nothing is a mask by its folder or name.

    paths: relative, with forward slashes. An image and its mask have one name in folders that correspond; a mask whose
    folders do not correspond belongs to the only image of its name.
    Raises KingletError where an image has several masks, or a mask several images.
    """
    files = [PurePosixPath(path) for path in sorted(paths) if has_image_suffix(path) and not is_hidden(path)]
    files = [file for file in files if NO_CLASSES not in map(str.lower, file.parts[:-1])]
    masks = [file for file in files if lies_among_masks(str(file))] or _masks_beside(files)
    taken = set(masks)
    images = [file for file in files if file not in taken]
    by_key: dict[_Key, list[str]] = defaultdict(list)
    by_name: dict[str, list[str]] = defaultdict(list)
    for image in images:
        for stem in _names(image, _IMAGE_ENDING):
            by_key[_key(image, stem)].append(str(image))
            by_name[stem].append(str(image))
    found: dict[str, str] = {}
    alone = []
    for mask in masks:
        names = _names(mask, _MASK_ENDING)
        same = next((by_key[key] for stem in names if (key := _key(mask, stem)) in by_key), None)
        same = same or next((by_name[stem] for stem in names if len(by_name.get(stem, [])) == 1), [])
        if not same:
            alone.append(str(mask))
            continue
        if len(same) > 1:
            raise KingletError(f"{mask} is the mask of {same[0]} and of {same[1]}.", "Give the images other names.")
        (of_mask,) = same
        if of_mask in found:
            raise KingletError(
                f"{of_mask} has two masks, {found[of_mask]} and {mask}.", "Keep one mask for an image in the folder."
            )
        found[of_mask] = str(mask)
    without = tuple(str(image) for image in images if str(image) not in found)
    return MaskPairs(dict(sorted(found.items())), without, tuple(alone))


def lies_among_masks(path: str) -> bool:
    """Return whether a file lies in a folder that is called like one of masks."""
    return any(_folder(name)[0] == "mask" for name in PurePosixPath(path).parts[:-1])


def _masks_beside(files: list[PurePosixPath]) -> list[PurePosixPath]:
    """Return the files that are called like another one in their folder with the ending of a mask behind."""
    known = {file.parent / name for file in files for name in _names(file, _IMAGE_ENDING)}
    return [
        file for file in files if any(file.parent / name in known for name in list(_names(file, _ENDING_BESIDE))[1:])
    ]


def _folder(name: str) -> tuple[str, str]:
    """Return what a folder holds by its name, "image", "mask" or "", and what else the name says."""
    lower = name.lower()
    if lower in MASK_FOLDERS:
        return "mask", ""
    if lower in IMAGE_FOLDERS:
        return "image", ""
    part = _PART.fullmatch(lower)
    if part:
        return ("image" if part[2].startswith("im") else "mask"), part[1]
    return "", lower


def _key(file: PurePosixPath, stem: str) -> _Key:
    return (*filter(None, (_folder(name)[1] for name in file.parts[:-1])), stem)


def _names(file: PurePosixPath, ending: re.Pattern[str]) -> dict[str, None]:
    """Return a file's name without suffix, and without the ending too where it has one; in this order."""
    return dict.fromkeys((file.stem, ending.sub("", file.stem)))
