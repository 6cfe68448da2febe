"""One folder per class: how a list of paths becomes labelled records, on a disk or in a bucket."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial

from kinglet.data.sources.records import SPLIT_NAMES, Record, printable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")

# What operating systems and file managers leave in every folder; it is nobody's image.
DROPPINGS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "icon\r", "@eadir", "$recycle.bin"}

NOT_A_CLASS = "top-level folders without an image, not taken for classes"
NOT_IN_A_CLASS = "files that lie in no class folder"
HIDDEN = "hidden files and what operating systems leave behind"


def is_hidden(path: str) -> bool:
    """Return whether any part of the path starts with a dot or is a dropping of an operating system."""
    return any(part.startswith(".") or part.lower() in DROPPINGS for part in path.split("/"))


def has_image_suffix(path: str) -> bool:
    """Return whether the name ends like that of an image."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def arrange(
    paths: list[str],
    is_image: Callable[[str], bool] = has_image_suffix,
    *,
    has_suffix: Callable[[str], bool] = has_image_suffix,
) -> tuple[list[Record], dict[str, list[str]]]:
    """Return the records of a set with one folder per class, sorted by path, and what was left out.

    paths: relative, with forward slashes. is_image: asked only about files without an image's suffix,
    and only where no file of the folder has one. has_suffix: whether a name ends like that of an image, or of what
    else the set consists of. The class is the first folder; or the second, where
    all first folders that hold images are called train, validation (valid, val) or test and hold
    folders: that is a split the set brings. A first folder without an image file is no class (a
    licence, lists, notes); files outside of class folders have no class. Everything in a class folder
    is a record, images or not, so that a text file among the images is found and not overlooked.
    """
    left_out: dict[str, list[str]] = defaultdict(list)
    folders: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        top, _, rest = path.partition("/")
        if is_hidden(path):
            left_out[HIDDEN].append(printable(path))
        elif not rest:
            left_out[NOT_IN_A_CLASS].append(printable(path))
        else:
            folders[top].append(path)
    for top in sorted(folders):
        if not holds_images(folders[top], is_image, has_suffix):
            left_out[NOT_A_CLASS].append(printable(top))
            del folders[top]
    if brings_a_split(folders):
        records = split_records(folders, partial(holds_images, is_image=is_image, has_suffix=has_suffix), left_out)
    else:
        records = [
            Record(printable(path), path, label=printable(top)) for top, files in folders.items() for path in files
        ]
    return sorted(records, key=lambda record: record.path), {
        reason: sorted(names) for reason, names in left_out.items()
    }


def holds_images(paths: list[str], is_image: Callable[[str], bool], has_suffix: Callable[[str], bool]) -> bool:
    """Return whether any file looks like an image."""
    return any(map(has_suffix, paths)) or any(map(is_image, paths))


def brings_a_split(folders: dict[str, list[str]]) -> bool:
    """Return whether the first folders are the parts of a split, each with class folders inside."""
    names = {SPLIT_NAMES.get(top.lower()) for top in folders}
    nested = all(any(path.count("/") >= 2 for path in files) for files in folders.values())
    return len(folders) > 1 and None not in names and "train" in names and nested


def split_records(
    folders: dict[str, list[str]], is_a_class: Callable[[list[str]], bool], left_out: dict[str, list[str]]
) -> list[Record]:
    """Return the records of first folders that are parts of a split; what lies in no class goes to `left_out`."""
    classes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for top, files in folders.items():
        for path in files:
            _, label, *rest = path.split("/")
            if rest:
                classes[top, label].append(path)
            else:
                left_out[NOT_IN_A_CLASS].append(printable(path))
    records = []
    for (top, label), files in classes.items():
        if not is_a_class(files):
            left_out[NOT_A_CLASS].append(printable(f"{top}/{label}"))
            continue
        given_split = SPLIT_NAMES[top.lower()]
        records += [Record(printable(path), path, label=printable(label), given_split=given_split) for path in files]
    return records
