"""The source of a data set for segmentation: a folder of images with masks, as files or as COCO's outlines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kinglet.atomic import atomic_folder, atomic_path, write_json
from kinglet.data.annotations.boxes import Finding
from kinglet.data.masks.formats import read_masked_images
from kinglet.data.masks.masked_images import MaskedImage, MaskedSet, without_classes
from kinglet.data.masks.packing import MaskJob, create_packed_masks, pack_masks
from kinglet.data.masks.tiling import TileOf, tiled
from kinglet.data.resolutions import segmenter_size, smallest_taught_segmenter, student_size
from kinglet.data.sources import Record, Source
from kinglet.data.sources.domains import NamedDomains, read_domains
from kinglet.data.sources.folder import list_files, read_file
from kinglet.data.sources.records import printable
from kinglet.errors import KingletError
from kinglet.runtime.preprocessing import TILE
from tasks.annotated_source import (
    folder_of,
    notes_on_unlabelled,
    refuse_corrections,
    sizes_of_students,
    tell_findings,
)
from tasks.artifacts import CORE, MASK_CLASSES, MASKS, TILES, InputSizes, packed_masks
from tasks.opened_source import OpenedSource, tell
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.settings_section import AUTO
from tasks.worker_processes import in_processes, job_ranges

WHAT_IS_READ = (
    "Name a folder with images and masks (images/ and masks/, or NAME.jpg and NAME_mask.png) or with COCO JSON, "
    "or set problem to classification."
)
# Edge in pixels from which `kinglet init` has images cut into tiles, not shrunk.
CUT_FROM = 1024
NO_MASK = "images without a mask"


def open_masked(parameters: Parameters) -> OpenedSource:
    """Return the source of images that have masks, and print what is left out of it.

    Raises KingletError for a source without masks, or settings that masks do not allow.
    """
    data = parameters.data
    refuse_corrections(data, parameters.problem)
    found = masks_in(folder_of(data.source, "masks", WHAT_IS_READ), data.max_pixels)
    found, ignored = without_ignored(found, data.ignore_classes)
    short_side = usual([min(image.width, image.height) for image in found.images if image.width])
    sizes = sizes_for(found.images, short_side, parameters)
    if data.fit == TILE:
        found = tiled(found, sizes.teacher)
    domains = read_domains(Path(data.source))
    source = Source(
        "folder",
        [record_of(image, domains) for image in found.images],
        partial(read_file, data.source),
        left_out={NO_MASK: [printable(path) for path in found.unmasked]} if found.unmasked else {},
        notes=[*found.notes, *notes_on_unlabelled(data.unlabelled, "segmentation learns from images with masks")],
    )
    tell(source, ignored, "pixels")
    tell_findings("annotations are left out", found.dropped)
    unusable = [Finding(image.path, image.problem) for image in found.images if image.problem]
    tell_findings("images have no mask that can be used", unusable)
    return OpenedSource(
        source,
        Source("unlabelled", [], source.read),
        ignored,
        short_side,
        sizes,
        partial(write_masks, found, sizes.all, data.fit),
        {
            "annotations": {
                "format": found.format,
                "n_masks": len(found.images),
                "unusable": {printable(image.path): image.fault for image in found.images if image.fault},
                "dropped": [asdict(finding) for finding in found.dropped],
            }
        },
    )


def record_of(image: MaskedImage, domains: NamedDomains) -> Record:
    """Return the record of an image, its domain with it.

    The tiles of one image are a group, and stay in one part of the split.
    """
    record = Record(
        printable(image.path),
        image.path,
        domain=domains.of(image.path),
        given_split=image.split,
        problem=image.problem,
    )
    if not isinstance(image.drawn_from, TileOf) or image.drawn_from.is_whole:
        return record
    whole, tile = image.drawn_from.image, image.drawn_from.tile
    part = (tile.left, tile.top, tile.width, tile.height)
    return replace(record, location=whole.path, group=printable(whole.path), domain=domains.of(whole.path), part=part)


def masks_in(root: Path, max_pixels: int) -> MaskedSet:
    """Return the data set in a folder; raises KingletError if it holds no masks."""
    found = read_masked_images(root, list_files(root), max_pixels)
    if found is None:
        raise KingletError(f"data.source: {root} holds no masks of images.", WHAT_IS_READ)
    return found


def without_ignored(found: MaskedSet, ignore: list[str]) -> tuple[MaskedSet, dict[str, int]]:
    """Return the set with the pixels of the classes in `ignore` void, and how many those were by class.

    Raises KingletError if a class to ignore does not exist, or fewer than two are left.
    """
    unknown = sorted(set(ignore) - set(found.classes))
    if unknown:
        raise KingletError(
            f"data.ignore_classes names {', '.join(unknown)}, but the classes are: {', '.join(found.classes)}."
        )
    left = [name for name in found.classes if name not in ignore]
    if len(left) < 2:
        raise KingletError(
            f"data.source: {len(left)} of {len(found.classes)} classes are left; segmentation needs two.",
            "Take a class out of data.ignore_classes.",
        )
    of_images = zip(*(image.pixels for image in found.images if image.pixels), strict=True)
    counts = dict(zip(found.classes, map(sum, of_images), strict=True))
    return without_classes(found, ignore) if ignore else found, {name: counts[name] for name in sorted(set(ignore))}


def sizes_for(images: Sequence[MaskedImage], short_side: int, parameters: Parameters) -> InputSizes:
    """Return the edge lengths that the models take, "auto" chosen by the size of the images.

    Raises KingletError for a student whose pictures the teacher could not answer.
    """
    size = parameters.finetune.input_size
    if size == AUTO:
        size = chosen_size(images)
    # Tiles are as large as the teacher's input, and shown at their own scale alone.
    smallest = size if parameters.data.fit == TILE else smallest_taught_segmenter(size)
    return InputSizes(
        teacher=size,
        # The windows that a training begins with are cut out of images of this size.
        low_resolution=size,
        student=student_size(short_side),
        students=sizes_of_students(parameters.distill.students, size, smallest),
        candidates=[],
    )


def chosen_size(images: Sequence[MaskedImage]) -> int:
    """Return the edge in pixels that `finetune.input_size: auto` means for these images."""
    return segmenter_size(usual([max(image.width, image.height) for image in images if image.width]))


def is_cut(images: Sequence[MaskedImage]) -> bool:
    """Return whether these images are so large that shrinking them would lose what they show."""
    return usual([max(image.width, image.height) for image in images if image.width]) > CUT_FROM


def usual(pixels: Sequence[int]) -> int:
    """Return the median of lengths in pixels, one at least."""
    return round(float(np.median(pixels)))


def write_masks(found: MaskedSet, sizes: Sequence[int], fit: str, rows: list[dict[str, Any]]) -> None:
    """Write every mask in its image's own pixels, all of them placed at each size, and the classes.

    rows: of the manifest, in the order of the images. Where an image or its mask cannot be used, there is no file, and
    the row of the packed masks is void.
    """
    usable = [
        (row["index"], image)
        for row, image in zip(rows, found.images, strict=True)
        if row["decode_ok"] and not image.problem
    ]
    with atomic_folder(MASKS) as folder, ExitStack() as outputs:
        files = {size: outputs.enter_context(atomic_path(packed_masks(size))) for size in sizes}
        for size, path in files.items():
            create_packed_masks(path, len(rows), size)
        jobs = [
            MaskJob(usable[run.start : run.stop], found.masks, folder, files, fit) for run in job_ranges(len(usable))
        ]
        with progress("masks") as report:
            n_done = 0
            for n_masks in in_processes(pack_masks, jobs, len(usable)):
                n_done += n_masks
                report(n_done, len(usable), "masks")
    write_json(MASK_CLASSES, list(found.classes))
    if fit == TILE:
        write_tiles(rows, found.images)


def write_tiles(rows: list[dict[str, Any]], images: Sequence[MaskedImage]) -> None:
    """Write of every tile which image it is a part of, and which of its own pixels it answers for.

    rows: of the manifest, in the order of the images.
    """
    table = []
    for row, image in zip(rows, images, strict=True):
        if isinstance(image.drawn_from, TileOf):
            tile = image.drawn_from.tile
            core = {
                "left": tile.core_left - tile.left,
                "top": tile.core_top - tile.top,
                "right": tile.core_right - tile.left,
                "bottom": tile.core_bottom - tile.top,
            }
            table.append({"index": row["index"], "image": printable(image.drawn_from.image.path), **core})
    with atomic_path(TILES) as path:
        pd.DataFrame(table, columns=["index", "image", *CORE]).to_parquet(path, index=False)
