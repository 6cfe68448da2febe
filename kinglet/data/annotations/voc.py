"""Boxes in Pascal VOC's XML files, one per image.

Source: Everingham et al. 2010, "The Pascal Visual Object Classes Challenge", and its development kit: pixels count
from 1, and xmax and ymax are the last pixels that belong to the object. Many tools count from 0 all the same: where
any box of the set begins at 0, all are taken so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from kinglet.data.annotations.boxes import AnnotatedImage, Annotations, Findings, usable_box, without_repetitions
from kinglet.data.annotations.image_files import ImageFiles, ImageSize, UnusableImageError, split_in
from kinglet.data.sources.records import SPLIT_NAMES

SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Annotated:
    """What one XML file says: objects as (place, label, four texts), and the size that it gives the image."""

    path: str
    image: str
    size: tuple[int, int] | None
    objects: tuple[tuple[str, str, tuple[str, ...]], ...]


def read_voc(root: Path, paths: list[str]) -> Annotations:
    """Return the data set of all VOC files below `root`; images without such a file are no part of it."""
    findings = Findings()
    files = ImageFiles(root, paths)
    splits = splits_of(root, paths)
    xml = [path for path in sorted(paths) if path.lower().endswith(".xml")]
    annotated = [item for path in xml if (item := read_file(root, path, findings))]
    from_zero = counts_from_zero(annotated)
    images: dict[str, AnnotatedImage] = {}
    for item in annotated:
        try:
            path = files.find(item.image, PurePosixPath(item.path).parent)
            size = files.size(path)
        except UnusableImageError as error:
            findings.drop(item.path, f"{error}; it had {len(item.objects)} objects")
            continue
        if item.size not in (None, size.stored, size.shown):
            shown = f"{size.shown[0]} x {size.shown[1]}"
            findings.drop(item.path, f"{path} has {shown} pixels, not {item.size[0]} x {item.size[1]}")
        elif path in images:
            findings.drop(item.path, f"annotates {path}, which another file does")
        else:
            split = splits.get(PurePosixPath(item.path).stem) or split_in(path)
            images[path] = image_of(item, path, size, split, from_zero, findings)
    found = tuple(images[path] for path in sorted(images))
    classes = sorted({box.label for image in found for box in image.boxes})
    counted = "pixels count from 0: some boxes begin there" if from_zero else "pixels count from 1, as VOC's do"
    dropped, changed = tuple(findings.dropped), tuple(findings.changed)
    return Annotations("Pascal VOC XML", found, tuple(classes), dropped, changed, (counted,))


def read_file(root: Path, path: str, findings: Findings) -> Annotated | None:
    """Return what a file says; None for one that is no annotation, with the reason noted if it is damaged."""
    try:
        # The parser below it (expat since 2.4.1) ends files whose entities grow out of all proportion, as an error.
        tree = ElementTree.parse(root / path).getroot()  # noqa: S314
    except ElementTree.ParseError as error:
        findings.drop(f"{path}, line {error.position[0]}", f"is no XML: {str(error).split(':')[0]}")
        return None
    if tree.tag != "annotation":
        return None
    objects = []
    for index, item in enumerate(tree.iter("object")):
        box = item.find("bndbox")
        sides = tuple((box.findtext(side) or "").strip() if box is not None else "" for side in SIDES)
        label = (item.findtext("name") or "").strip()
        if label:
            objects.append((f"{path}, object {index + 1}", label, sides))
        else:
            findings.drop(f"{path}, object {index + 1}", "has no name")
    sizes = [(tree.findtext(f"size/{side}") or "").strip() for side in ("width", "height")]
    size = (int(sizes[0]), int(sizes[1])) if all(side.isdigit() and int(side) for side in sizes) else None
    return Annotated(path, (tree.findtext("filename") or "").strip() or PurePosixPath(path).stem, size, tuple(objects))


def counts_from_zero(annotated: list[Annotated]) -> bool:
    """Return whether any box of the set begins at pixel 0, which in VOC's own count does not exist."""
    return any(side in ("0", "0.0") for item in annotated for _, _, sides in item.objects for side in sides[:2])


def image_of(
    item: Annotated, path: str, size: ImageSize, split: str, from_zero: bool, findings: Findings
) -> AnnotatedImage:
    """Return an image with its boxes, in continuous pixels."""
    first = 0.0 if from_zero else 1.0
    boxes = []
    for place, label, sides in item.objects:
        try:
            left, top, right, bottom = map(float, sides)
        except ValueError:
            usable_box(sides, label, size.shown, place, findings)
            continue
        # The last pixel belongs to the object: counted from 1, its number is that of its far edge. Tools that count
        # from 0 give the edge itself.
        xyxy = size.as_shown((left - first, top - first, right, bottom), item.size or size.shown)
        box = usable_box(xyxy, label, size.shown, place, findings)
        if box:
            boxes.append((place, box))
    return AnnotatedImage(path, *size.shown, without_repetitions(boxes, findings), split)


def splits_of(root: Path, paths: list[str], lists: str = "Main") -> dict[str, str]:
    """Return {name of an image without suffix: part} as the lists in ImageSets/Main say.

    lists: Main of boxes, Segmentation of masks. trainval, and lists of one class, are not among them.
    """
    found: dict[str, str] = {}
    for path in sorted(paths):
        parts = PurePosixPath(path)
        if parts.parent.parts[-2:] == ("ImageSets", lists) and parts.suffix == ".txt" and parts.stem in SPLIT_NAMES:
            lines = (root / path).read_text(encoding="utf-8", errors="replace").splitlines()
            found.update({line.split()[0]: SPLIT_NAMES[parts.stem] for line in lines if line.strip()})
    return found
