"""Boxes in COCO's JSON files.

Source: https://cocodataset.org/#format-data. A box is [left, top, width, height] in continuous pixels.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kinglet.data.annotations.boxes import (
    AnnotatedImage,
    Annotations,
    Box,
    Findings,
    usable_box,
    without_repetitions,
)
from kinglet.data.annotations.image_files import ImageFiles, ImageSize, UnusableImageError, split_in
from kinglet.errors import KingletError

PARTS = ("images", "annotations", "categories")


def read_coco(root: Path, paths: list[str]) -> Annotations:
    """Return the data set of all COCO files below `root`; two files must not speak of the same image.

    Raises KingletError, with file and line or index, for a file whose parts contradict each other.
    """
    findings = Findings()
    files = ImageFiles(root, paths)
    images: dict[str, tuple[str, AnnotatedImage]] = {}
    classes: set[str] = set()
    for path, content in coco_files(root, paths):
        names = categories_of(content["categories"], path)
        classes.update(names.values())
        for item in images_of(content, path, files, findings):
            refuse_second(path, item.path, images.get(item.path, (None,))[0])
            images[item.path] = (path, boxes_of(item, names, findings))
    found = tuple(images[path][1] for path in sorted(images))
    return Annotations("COCO JSON", found, tuple(sorted(classes)), tuple(findings.dropped), tuple(findings.changed))


def read_json_file(file: Path, path: str) -> Any:
    """Return a JSON file's content; raises KingletError with line and column."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise KingletError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}.") from None
    except UnicodeDecodeError as error:
        raise KingletError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from None


def categories_of(entries: list[Any], path: str) -> dict[Any, str]:
    """Return {id: name}; raises KingletError for an id or a name that stands there twice or not at all."""
    names: dict[Any, str] = {}
    for index, entry in enumerate(entries):
        name = str(entry.get("name") or "").strip() if isinstance(entry, dict) else ""
        if not name or "id" not in entry:
            raise KingletError(f"{path}, categories[{index}] has no id or no name.", "Every category needs both.")
        if entry["id"] in names or name in names.values():
            raise KingletError(f"{path}, categories[{index}] repeats the id {entry['id']} or the name {name!r}.")
        names[entry["id"]] = name
    return names


@dataclass(frozen=True)
class CocoImage:
    """One image of a file. annotated: the size that the file gives it. annotations: (place, entry) of each."""

    path: str
    size: ImageSize
    annotated: tuple[int, int]
    split: str
    annotations: list[tuple[str, dict[str, Any]]]


def coco_files(root: Path, paths: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path, content) of all COCO files below `root`, ascending by path."""
    for path in sorted(path for path in paths if path.lower().endswith(".json")):
        content = read_json_file(root / path, path)
        if isinstance(content, dict) and all(isinstance(content.get(part), list) for part in PARTS):
            yield path, content


def refuse_second(path: str, image: str, first: str | None) -> None:
    """Raise KingletError if a file annotates an image that the file `first` does."""
    if first is not None:
        raise KingletError(f"{path} and {first} both annotate {image}.", "Remove it from one of the two.")


def images_of(content: dict[str, Any], path: str, files: ImageFiles, findings: Findings) -> Iterator[CocoImage]:
    """Yield the images of one file that can be used, with their annotations; the others go to `findings`."""
    entries = images_by_id(content["images"], path)
    annotations: dict[Any, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for index, entry in enumerate(content["annotations"]):
        place = f"{path}, annotations[{index}]"
        if not isinstance(entry, dict) or entry.get("image_id") not in entries:
            given = entry.get("image_id") if isinstance(entry, dict) else entry
            findings.drop(place, f"its image_id {given} is that of no image")
        else:
            annotations[entry["image_id"]].append((place, entry))
    for key, (place, entry) in entries.items():
        name = str(entry["file_name"])
        try:
            image = files.find(name, PurePosixPath(path).parent)
            size = files.size(image)
        except UnusableImageError as error:
            findings.drop(place, f"{error}; it had {len(annotations[key])} annotations")
            continue
        annotated = annotated_size(entry, size, place, findings)
        if annotated is not None:
            yield CocoImage(image, size, annotated, split_in(path) or split_in(image), annotations[key])


def boxes_of(image: CocoImage, names: dict[Any, str], findings: Findings) -> AnnotatedImage:
    """Return an image with its boxes; what cannot be used goes to `findings`."""
    boxes = [
        (there, box)
        for there, annotation in image.annotations
        if (box := box_of(annotation, there, names, image.size, image.annotated, findings))
    ]
    return AnnotatedImage(image.path, *image.size.shown, without_repetitions(boxes, findings), image.split)


def images_by_id(entries: list[Any], path: str) -> dict[Any, tuple[str, dict[str, Any]]]:
    """Return {id: (place, entry)} of the images; raises KingletError for an id or a file that occurs twice."""
    found: dict[Any, tuple[str, dict[str, Any]]] = {}
    names: dict[str, str] = {}
    for index, entry in enumerate(entries):
        place = f"{path}, images[{index}]"
        if not isinstance(entry, dict) or "id" not in entry or not entry.get("file_name"):
            raise KingletError(f"{place} has no id or no file_name.", "Every image needs both.")
        if entry["id"] in found:
            raise KingletError(
                f"{place} has the id {entry['id']} of {found[entry['id']][0]}.", "Give it one of its own."
            )
        if entry["file_name"] in names:
            raise KingletError(f"{place} names {entry['file_name']}, as {names[entry['file_name']]} does.")
        found[entry["id"]] = (place, entry)
        names[entry["file_name"]] = place
    return found


def annotated_size(entry: dict[str, Any], size: ImageSize, place: str, findings: Findings) -> tuple[int, int] | None:
    """Return the size that the file gives an image; None, with the reason noted, if the image has another."""
    given = entry.get("width"), entry.get("height")
    if None in given:
        return size.shown
    if given not in (size.stored, size.shown):
        shown = f"{size.shown[0]} x {size.shown[1]}"
        findings.drop(place, f"{entry['file_name']} has {shown} pixels, not {given[0]} x {given[1]}")
        return None
    return given


def label_of(entry: dict[str, Any], place: str, names: dict[Any, str], findings: Findings) -> str | None:
    """Return the class of an annotation; None, with the reason noted, if there is none of its number."""
    label = names.get(entry.get("category_id"))
    if label is None:
        findings.drop(place, f"its category_id {entry.get('category_id')} is that of no category")
    return label


def box_of(
    entry: dict[str, Any],
    place: str,
    names: dict[Any, str],
    size: ImageSize,
    annotated: tuple[int, int],
    findings: Findings,
) -> Box | None:
    """Return the box of one annotation; None, with the reason noted, if it is none."""
    label = label_of(entry, place, names, findings)
    if label is None:
        return None
    if entry.get("iscrowd"):
        findings.drop(place, f"a crowd of {label!r}, no single object")
        return None
    given = entry.get("bbox")
    values: list[Any] = list(given) if isinstance(given, list) else [given]
    try:
        left, top, width, height = (float(value) for value in values)
    except (TypeError, ValueError):
        return usable_box(values, label, size.shown, place, findings)
    return usable_box(
        size.as_shown((left, top, left + width, top + height), annotated), label, size.shown, place, findings
    )
