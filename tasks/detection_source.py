"""The source of a data set for detection: a folder of images with boxes in COCO's, Pascal VOC's or YOLO's format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kinglet.atomic import atomic_path
from kinglet.data.annotations import (
    READERS,
    AnnotatedImage,
    Annotations,
    Box,
    annotation_format,
    read_annotations,
)
from kinglet.data.annotations.facts import box_areas, coordinates
from kinglet.data.annotations.image_files import ImageFiles
from kinglet.data.annotations.mot import FORMAT as SEQUENCES
from kinglet.data.annotations.mot import read_frame
from kinglet.data.resolutions import detector_size, low_resolution_of_detector, student_size
from kinglet.data.sources import Record, Source
from kinglet.data.sources.domains import NamedDomains, read_domains
from kinglet.data.sources.folder import list_files, read_file
from kinglet.data.sources.records import printable
from kinglet.errors import KingletError
from tasks.annotated_source import (
    folder_of,
    notes_on_unlabelled,
    refuse_corrections,
    sizes_of_students,
    tell_findings,
)
from tasks.artifacts import BOXES, InputSizes
from tasks.opened_source import OpenedSource, tell
from tasks.parameters import Parameters
from tasks.settings_section import AUTO

WHAT_IS_READ = f"Name a folder with {', '.join(READERS)}, or set problem to classification."
NOT_ANNOTATED = "image files that no annotation uses"
# Of the objects, so many are smaller than what counts as a small one.
SMALL_QUANTILE = 0.05
SIDES = ("x1", "y1", "x2", "y2")


def open_annotated(parameters: Parameters) -> OpenedSource:
    """Return the source of images that have boxes, and print what is left out of it.

    Raises KingletError for a source without boxes, or settings that boxes do not allow.
    """
    data = parameters.data
    refuse_corrections(data, parameters.problem)
    root = folder_of(data.source, "boxes", WHAT_IS_READ)
    paths = list_files(root)
    found, notes = annotations_in(root, paths)
    images, ignored = without_labels(found, data.ignore_classes)
    domains = read_domains(root)
    used = {image.path for image in images}
    unused = [printable(path) for path in ImageFiles(root, paths).paths if path not in used]
    source = Source(
        "folder",
        [record_of(image, domains) for image in images],
        partial(read_frame if found.format == SEQUENCES else read_file, str(root)),
        left_out={NOT_ANNOTATED: unused} if unused else {},
        notes=[
            *notes,
            *notes_on_classes(found),
            *notes_on_unlabelled(data.unlabelled, f"{parameters.problem} learns from images with boxes"),
        ],
    )
    tell(source, ignored, "boxes")
    tell_findings("annotations are left out", found.dropped)
    tell_findings("boxes are cut at the edge of their image", found.changed)
    short_side = round(float(np.median([min(image.width, image.height) for image in images])))
    return OpenedSource(
        source,
        Source("unlabelled", [], source.read),
        ignored,
        short_side,
        sizes_for(images, short_side, parameters),
        partial(write_boxes, [image.boxes for image in images], BOXES),
        facts={
            "annotations": {
                "format": found.format,
                "n_boxes": sum(len(image.boxes) for image in images),
                "dropped": [asdict(finding) for finding in found.dropped],
                "cut": [asdict(finding) for finding in found.changed],
            }
        },
    )


def record_of(image: AnnotatedImage, domains: NamedDomains) -> Record:
    """Return the record of an image, its domain with it."""
    domain = domains.of(image.path)
    return Record(printable(image.path), image.path, group=image.group, domain=domain, given_split=image.split)


def annotations_in(root: Path, paths: list[str]) -> tuple[Annotations, list[str]]:
    """Return the data set in a folder, and what was assumed of it.

    Raises KingletError if it holds no boxes in a format that is read.
    """
    kind = annotation_format(root, paths)
    if kind is None:
        raise KingletError(f"data.source: {root} holds no annotations with boxes.", WHAT_IS_READ)
    if kind.name not in READERS:
        raise KingletError(
            f"data.source: {root} holds no boxes, but a data set for {kind.problem} ({kind.name}: {kind.example}).",
            WHAT_IS_READ,
        )
    found = read_annotations(root, paths, kind.name)
    if not any(image.boxes for image in found.images):
        why = f": {found.dropped[0].place}: {found.dropped[0].reason}" if found.dropped else ""
        raise KingletError(
            f"data.source: {root} ({found.format}) holds {len(found.images)} images and no box that can be used{why}.",
            WHAT_IS_READ,
        )
    outlines = ["of outlines, the smallest boxes around them are learned"] if kind.problem == "segmentation" else []
    return found, [*found.notes, *outlines]


def without_labels(found: Annotations, ignore: list[str]) -> tuple[Sequence[AnnotatedImage], dict[str, int]]:
    """Return the images without the boxes of the classes in `ignore`, and how many those were by class.

    Images stay that have no other boxes: they show that there is nothing to find. Raises KingletError if a class to
    ignore does not exist or no box is left.
    """
    unknown = sorted(set(ignore) - set(found.classes))
    if unknown:
        raise KingletError(
            f"data.ignore_classes names {', '.join(unknown)}, but the classes are: {', '.join(found.classes)}."
        )
    ignored = Counter(dict.fromkeys(sorted(ignore), 0))
    ignored.update(box.label for image in found.images for box in image.boxes if box.label in ignore)

    def kept(box: Box) -> bool:
        return box.label not in ignored

    images = [replace(image, boxes=tuple(filter(kept, image.boxes))) for image in found.images]
    if not any(image.boxes for image in images):
        raise KingletError("data.source: no box is left.", "Take a class out of data.ignore_classes.")
    return images, dict(ignored)


def notes_on_classes(found: Annotations) -> list[str]:
    """Return in words which classes are named and have no box, nothing where all have some."""
    shown = {box.label for image in found.images for box in image.boxes}
    empty = [label for label in found.classes if label not in shown]
    return [f"classes without a box are left out: {', '.join(empty)}"] if empty else []


def sizes_for(images: Sequence[AnnotatedImage], short_side: int, parameters: Parameters) -> InputSizes:
    """Return the edge lengths that the models take, "auto" chosen by the images and the size of their boxes.

    Raises KingletError for a student whose pictures the teacher could not answer.
    """
    size = parameters.finetune.input_size
    if size == AUTO:
        size = chosen_size(images)
    low = low_resolution_of_detector(size)
    return InputSizes(
        teacher=size,
        low_resolution=low if parameters.finetune.low_resolution_share else size,
        student=student_size(short_side),
        # Below the size that the first part of its own training has, a teacher misses what a student should learn.
        students=sizes_of_students(parameters.distill.students, size, low),
        candidates=[],
    )


def chosen_size(images: Sequence[AnnotatedImage]) -> int:
    """Return the edge in pixels that `finetune.input_size: auto` means for these images, one box at least."""
    shares = [np.sqrt(box_areas(coordinates(image))) / max(image.width, image.height) for image in images]
    small = float(np.quantile(np.concatenate(shares), SMALL_QUANTILE))
    return detector_size(small, round(float(np.median([max(image.width, image.height) for image in images]))))


def write_boxes(boxes: Sequence[tuple[Box, ...]], file: Path, _rows: list[dict[str, Any]]) -> None:
    """Write a row for every box, in the order of the images and of each one's boxes.

    boxes: of each image, the first being that of `index` 0.
    """
    import pyarrow
    import pyarrow.parquet

    rows = [(index, box) for index, of_image in enumerate(boxes) for box in of_image]
    sides = {name: [box.xyxy[side] for _, box in rows] for side, name in enumerate(SIDES)}
    columns = {"index": [index for index, _ in rows], "label": [box.label for _, box in rows], **sides}
    columns["identity"] = [box.identity for _, box in rows]
    kinds = [pyarrow.int64(), pyarrow.string(), *[pyarrow.float64()] * len(SIDES), pyarrow.int64()]
    schema = pyarrow.schema(list(zip(columns, kinds, strict=True)))
    with atomic_path(file) as path:
        pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), path)
