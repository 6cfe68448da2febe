"""Read the source into a manifest and packed, decoded images.

Every image is decoded once, here: training, scoring and the report read the packed arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from kinglet.atomic import atomic_path, write_json
from kinglet.data.annotations.boxes import Box
from kinglet.data.packing import COLUMNS, Job, Packing, create_packed_file, keep_first_channel, pack
from kinglet.data.sources import Record, Source
from kinglet.runtime.processors import available_processors
from tasks.artifacts import BOXES, FRAMES, GIVEN, INGEST, SOURCE_FACTS, packed_images
from tasks.detection_source import open_annotated
from tasks.opened_source import OpenedSource, open_classified
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.stage import end_with_parent, run_stage
from tasks.tracking_source import open_sequences

MANIFEST = INGEST / "manifest.parquet"
UNLABELLED_MANIFEST = INGEST / "unlabelled.parquet"
CHANNELS = {"gray": 1, "rgb": 3}
SIDES = ("x1", "y1", "x2", "y2")

RECORDS_PER_JOB = 64
# Starting processes takes about a second; a few images are decoded sooner than that.
RECORDS_WORTH_PROCESSES = 300


def run(parameters: Parameters) -> None:
    """Write `artifacts/ingest`: both manifests, source.json, one images_SIZE.npy for every size needed.

    Where images have boxes or are frames, boxes.parquet and frames.parquet.

    Images without a label come after the others in the packed files, and have a manifest of their own.
    """
    data = parameters.data
    opened = OPENERS[parameters.problem](parameters)
    source, unlabelled, records = opened.source, opened.unlabelled, opened.source.records
    # Where the file formats do not say beforehand, room for colour is made and given back if all images are gray.
    channels = CHANNELS.get(data.color) or source.channels or 3
    with ExitStack() as outputs:
        files = {size: outputs.enter_context(atomic_path(packed_images(size))) for size in opened.input_sizes.all}
        for size, path in files.items():
            create_packed_file(path, len(records) + len(unlabelled.records), size, channels)
        packing = Packing(files, channels, data.fit, data.max_pixels)
        rows = decode_all(records, source, packing)
        if data.color == "auto" and channels == 3 and {row["channels"] for row in rows} <= {0, 1}:
            channels = 1
            for path in files.values():
                with atomic_path(path.with_suffix(".gray")) as smaller:
                    keep_first_channel(path, smaller)
                path.with_suffix(".gray").replace(path)
        # The labelled images alone decide on the colour.
        packing = Packing(files, channels, data.fit, data.max_pixels)
        more = decode_all(unlabelled.records, unlabelled, packing, "ingest, without a label", len(records))
    write_manifest(rows, records, MANIFEST)
    write_manifest(more, unlabelled.records, UNLABELLED_MANIFEST)
    if opened.boxes is not None:
        write_boxes(opened.boxes, BOXES)
    if opened.frames is not None:
        write_frames(opened.frames, FRAMES)
    facts = {
        "kind": source.kind,
        "channels": channels,
        "fit": data.fit,
        "short_side": opened.short_side,
        "input_sizes": asdict(opened.input_sizes),
        "n_files": len(rows),
        "n_unlabelled": len(more),
        "n_undecodable": sum(not row["decode_ok"] for row in rows),
        "left_out": source.left_out,
        "ignored_classes": opened.ignored,
        **opened.facts,
    }
    write_json(SOURCE_FACTS, facts)


def decode_all(
    records: list[Record], source: Source, packing: Packing, title: str = "ingest", first_row: int = 0
) -> list[dict[str, Any]]:
    """Return the manifest rows of all records, in their order; the packed files are filled on the way.

    title: what the display of the progress calls it. first_row: of the packed files, for the first record.
    """
    jobs = [
        Job(first_row + first, records[first : first + RECORDS_PER_JOB], source.read, source.concurrent_reads, packing)
        for first in range(0, len(records), RECORDS_PER_JOB)
    ]
    rows: list[dict[str, Any]] = []
    with progress(title) as report:
        for done in in_processes(
            jobs, n_processes=available_processors() if len(records) >= RECORDS_WORTH_PROCESSES else 1
        ):
            rows += done
            report(len(rows), len(records), "images")
    return rows


def in_processes(jobs: list[Job], n_processes: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the results of `pack` for all jobs, in order, computed in `n_processes` processes."""
    if n_processes == 1:
        yield from map(pack, jobs)
        return
    # Spawned, not forked: this process has threads, and a fork of one that holds a lock hangs.
    pool = ProcessPoolExecutor(n_processes, get_context("spawn"), initializer=end_with_parent)
    try:
        yield from pool.map(pack, jobs)
    finally:
        pool.shutdown(cancel_futures=True)


def write_manifest(rows: list[dict[str, Any]], records: list[Record], manifest: Path) -> None:
    """Write a manifest, with typed columns also where there are no rows.

    What else a table says of the images stands behind, in columns of text that are named after the table's.
    """
    import pyarrow
    import pyarrow.parquet

    arrow = {int: pyarrow.int64(), str: pyarrow.string(), bool: pyarrow.bool_()}
    schema = pyarrow.schema([(name, arrow[kind]) for name, kind in COLUMNS.items()])
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    for name in dict.fromkeys(name for record in records for name, _ in record.further):
        schema = schema.append(pyarrow.field(GIVEN + name, pyarrow.string()))
        columns[GIVEN + name] = [dict(record.further).get(name, "") for record in records]
    with atomic_path(manifest) as path:
        pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), path)


def write_boxes(boxes: Sequence[tuple[Box, ...]], file: Path) -> None:
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


def write_frames(frames: Sequence[tuple[str, int, float]], file: Path) -> None:
    """Write of which sequence every image is a frame, its number there and its seconds after the first."""
    import pyarrow
    import pyarrow.parquet

    sequences, numbers, seconds = zip(*frames, strict=True)
    columns = {"index": range(len(frames)), "sequence": sequences, "frame": numbers, "seconds": seconds}
    with atomic_path(file) as path:
        pyarrow.parquet.write_table(pyarrow.table({name: list(values) for name, values in columns.items()}), path)


OPENERS: dict[str, Callable[[Parameters], OpenedSource]] = {
    "classification": open_classified,
    "detection": open_annotated,
    "tracking": open_sequences,
}

if __name__ == "__main__":
    run_stage(run)
