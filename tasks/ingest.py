"""Read the source into a manifest and packed, decoded images.

Every image is decoded once, here: training, scoring and the report read the packed arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kinglet.atomic import atomic_path, write_json
from kinglet.data.packing import COLUMNS, Job, Packing, create_packed_file, keep_first_channel, pack
from kinglet.data.sources import Record, Source
from tasks.artifacts import GIVEN, INGEST, SOURCE_FACTS, packed_clips, packed_images
from tasks.clip_source import open_clips
from tasks.detection_source import open_annotated
from tasks.opened_source import OpenedSource, open_classified
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.segmentation_source import open_masked
from tasks.stage import run_stage
from tasks.tracking_source import open_sequences
from tasks.worker_processes import in_processes, job_ranges

MANIFEST = INGEST / "manifest.parquet"
UNLABELLED_MANIFEST = INGEST / "unlabelled.parquet"
CHANNELS = {"gray": 1, "rgb": 3}


def run(parameters: Parameters) -> None:
    """Write `artifacts/ingest`: both manifests, source.json, one images_SIZE.npy for every size needed, and
    boxes, masks or clips where the problem has some.

    Images without a label come after the others in the packed files, and have a manifest of their own.
    """
    data = parameters.data
    opened = OPENERS[parameters.problem](parameters)
    source, unlabelled, records = opened.source, opened.unlabelled, opened.source.records
    # Where the file formats do not say beforehand, room for colour is made and given back if all images are gray.
    channels = CHANNELS.get(data.color) or source.channels or 3
    sizes, n_rows = opened.input_sizes.all, len(records) + len(unlabelled.records)
    with ExitStack() as outputs:
        files = {size: outputs.enter_context(atomic_path(packed_images(size))) for size in sizes}
        clips = {size: outputs.enter_context(atomic_path(packed_clips(size))) for size in sizes if opened.frames}
        for paths, frames in ((files, 0), (clips, opened.frames)):
            for size, path in paths.items():
                create_packed_file(path, n_rows, size, channels, frames)
        packing = Packing(files, channels, data.fit, data.max_pixels, clips)
        rows = decode_all(records, source, packing, work=opened.pack, of="clips" if opened.frames else "images")
        if data.color == "auto" and channels == 3 and {row["channels"] for row in rows} <= {0, 1}:
            channels = 1
            for path in [*files.values(), *clips.values()]:
                with atomic_path(path.with_suffix(".gray")) as smaller:
                    keep_first_channel(path, smaller)
                path.with_suffix(".gray").replace(path)
        # The labelled images alone decide on the colour.
        packing = replace(packing, channels=channels)
        more = decode_all(unlabelled.records, unlabelled, packing, "ingest, without a label", len(records))
    write_manifest(rows, records, MANIFEST)
    write_manifest(more, unlabelled.records, UNLABELLED_MANIFEST)
    opened.write_annotations(rows)
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
    records: list[Record],
    source: Source,
    packing: Packing,
    title: str = "ingest",
    first_row: int = 0,
    work: Callable[[Job], list[dict[str, Any]]] = pack,
    of: str = "images",
) -> list[dict[str, Any]]:
    """Return the manifest rows of all records, in their order; the packed files are filled on the way.

    title: what the display of the progress calls it. first_row: of the packed files, for the first record. work: what
    decodes and packs the records of a job. of: what it calls the records.
    """
    jobs = [
        Job(first_row + run.start, records[run.start : run.stop], source.read, source.concurrent_reads, packing)
        for run in job_ranges(len(records))
    ]
    rows: list[dict[str, Any]] = []
    with progress(title) as report:
        for done in in_processes(work, jobs, len(records)):
            rows += done
            report(len(rows), len(records), of)
    return rows


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


OPENERS: dict[str, Callable[[Parameters], OpenedSource]] = {
    "classification": open_classified,
    "detection": open_annotated,
    "segmentation": open_masked,
    "tracking": open_sequences,
    "video": open_clips,
}

if __name__ == "__main__":
    run_stage(run)
