"""Boxes in YOLO's text files, one per image: number of the class, then center and size as shares of the image's.

A line with more numbers is a polygon; its box is the smallest around it. Names of the classes stand in data.yaml
(a list, or numbers with names) or one a line in classes.txt or obj.names.
Source: https://docs.ultralytics.com/datasets/detect
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from kinglet.data.annotations.boxes import AnnotatedImage, Annotations, Box, Findings, usable_box, without_repetitions
from kinglet.data.annotations.image_files import ImageFiles, UnusableImageError, split_in
from kinglet.errors import KingletError

NAME_LISTS = ("classes.txt", "obj.names", "_darknet.labels")


def read_yolo(root: Path, paths: list[str]) -> Annotations:
    """Return the data set of all images below `root`; one without a text file shows none of the classes.

    Raises KingletError if the names of the classes are not to be found or not readable.
    """
    findings = Findings()
    files = ImageFiles(root, paths)
    names = class_names(root, paths)
    texts = {path for path in paths if path.lower().endswith(".txt")}
    images = []
    for path in files.paths:
        try:
            size = files.size(path)
        except UnusableImageError as error:
            findings.drop(path, str(error))
            continue
        text = text_beside(path, texts)
        boxes = read_text(root, text, names, size.shown, findings) if text else []
        images.append(AnnotatedImage(path, *size.shown, without_repetitions(boxes, findings), split_in(path)))
    classes = tuple(sorted(names.values()))
    return Annotations("YOLO text", tuple(images), classes, tuple(findings.dropped), tuple(findings.changed))


def text_beside(path: str, texts: set[str]) -> str:
    """Return the text file of an image: beside it, or in the folder labels where it lies in images; "" if none."""
    image = PurePosixPath(path).with_suffix(".txt")
    parts = list(image.parts)
    positions = [index for index, part in enumerate(parts) if part == "images"]
    elsewhere = [*parts[: positions[-1]], "labels", *parts[positions[-1] + 1 :]] if positions else parts
    return next((str(name) for name in (PurePosixPath(*elsewhere), image) if str(name) in texts), "")


def read_text(
    root: Path, text: str, names: dict[int, str], size: tuple[int, int], findings: Findings
) -> list[tuple[str, Box]]:
    """Return (place, box) for every line that holds one; what cannot be used goes to `findings`."""
    boxes = []
    lines = (root / text).read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        place, words = f"{text}, line {number}", line.split()
        if not words:
            continue
        label = names.get(int(words[0])) if words[0].isdigit() else None
        if label is None:
            findings.drop(place, f"its class {words[0]} is none of 0 to {max(names)}")
            continue
        shares = numbers_of(words[1:])
        if shares is None or (len(shares) != 4 and (len(shares) < 6 or len(shares) % 2)):
            findings.drop(place, f"its box is not four numbers: {' '.join(words[1:])[:60]}")
            continue
        if max(shares) > 1 + 1e-3 and max(shares) > 2:
            findings.drop(place, f"its box is not in shares of the image, 0 to 1: {' '.join(words[1:])[:60]}")
            continue
        box = usable_box(corners(shares, size), label, size, place, findings)
        if box:
            boxes.append((place, box))
    return boxes


def numbers_of(words: list[str]) -> list[float] | None:
    """Return the numbers that words stand for; None if one is none."""
    try:
        return [float(word) for word in words]
    except ValueError:
        return None


def corners(shares: list[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom in pixels of a box (center and size) or a polygon, given in shares."""
    width, height = size
    if len(shares) == 4:
        x, y, w, h = shares
        return (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
    xs, ys = shares[::2], shares[1::2]
    return min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height


def class_names(root: Path, paths: list[str]) -> dict[int, str]:
    """Return {number: name}; raises KingletError if there is no list of names, or it is not one."""
    for path in sorted(paths, key=lambda path: path.count("/")):
        name = PurePosixPath(path).name
        if name in NAME_LISTS:
            lines = (root / path).read_text(encoding="utf-8", errors="replace").splitlines()
            return dict(enumerate(line.strip() for line in lines if line.strip()))
        if name.endswith((".yaml", ".yml")) and (names := names_in_yaml(root / path, path)):
            return names
    raise KingletError(
        f"{root} holds YOLO's text files, but no list of the classes' names.",
        "Add data.yaml with `names:`, or classes.txt with one name a line.",
    )


def names_in_yaml(file: Path, path: str) -> dict[int, str]:
    """Return the names under `names`, none if there is no such key; raises KingletError if they are no names."""
    try:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise KingletError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    names = content.get("names") if isinstance(content, dict) else None
    if names is None:
        return {}
    found = names if isinstance(names, dict) else dict(enumerate(names)) if isinstance(names, list) else {}
    if not found or not all(str(key).isdigit() and str(name).strip() for key, name in found.items()):
        raise KingletError(f"{path}: names is neither a list of names nor numbers with names.")
    return {int(key): str(name).strip() for key, name in found.items()}
