"""Read the source into a manifest and packed, decoded images.

Every image is decoded once, here: training, scoring and the report read the packed arrays.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from kinglet.atomic import atomic_path, write_json
from kinglet.data.label_corrections import DROPPED, correct, read_corrections
from kinglet.data.packing import COLUMNS, Job, Packing, create_packed_file, keep_first_channel, pack, usual_short_side
from kinglet.data.resolutions import (
    backbone_sizes,
    low_resolution,
    residual_sizes,
    rival_sizes,
    student_size,
    teacher_size,
)
from kinglet.data.sources import Record, Source, open_source, open_unlabelled
from kinglet.errors import KingletError
from kinglet.runtime.processors import available_processors
from tasks.artifacts import GIVEN, INGEST, SOURCE_FACTS, TEACHER, InputSizes, packed_images, untaught
from tasks.parameters import AUTO, Parameters, Prune, Search
from tasks.progress import progress
from tasks.stage import end_with_parent, run_stage

MANIFEST = INGEST / "manifest.parquet"
UNLABELLED_MANIFEST = INGEST / "unlabelled.parquet"
CHANNELS = {"gray": 1, "rgb": 3}

RECORDS_PER_JOB = 64
# Starting processes takes about a second; a few images are decoded sooner than that.
RECORDS_WORTH_PROCESSES = 300


def run(parameters: Parameters) -> None:
    """Write `artifacts/ingest`: both manifests, source.json and one images_SIZE.npy for every size needed.

    Images without a label come after the others in the packed files, and have a manifest of their own.
    """
    data = parameters.data
    source = open_source(data.source, data.images)
    records, dropped = correct(source.records, read_corrections(data.label_corrections))
    if dropped:
        source = replace(source, left_out={**source.left_out, DROPPED: dropped})
    records, ignored = without_classes(records, data.ignore_classes)
    tell(source, ignored)
    unlabelled = open_unlabelled(data.unlabelled) if data.unlabelled else Source("unlabelled", [], source.read)
    # Where the file formats do not say beforehand, room for colour is made and given back if all images are gray.
    channels = CHANNELS.get(data.color) or source.channels or 3
    short_side = usual_short_side(records, source.read, data.max_pixels)
    input_sizes = choose_sizes(parameters, short_side)
    with ExitStack() as outputs:
        files = {size: outputs.enter_context(atomic_path(packed_images(size))) for size in input_sizes.all}
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
    facts = {
        "kind": source.kind,
        "channels": channels,
        "fit": data.fit,
        "short_side": short_side,
        "input_sizes": asdict(input_sizes),
        "n_files": len(rows),
        "n_unlabelled": len(more),
        "n_undecodable": sum(not row["decode_ok"] for row in rows),
        "left_out": source.left_out,
        "ignored_classes": ignored,
    }
    write_json(SOURCE_FACTS, facts)


def choose_sizes(parameters: Parameters, short_side: int) -> InputSizes:
    """Return the edge lengths that the models take, those left to "auto" chosen for images of this short side."""
    teacher = parameters.finetune.input_size
    chosen = teacher_size(short_side) if teacher == AUTO else teacher
    student = student_size(short_side)
    students = {
        name: student if settings.input_size == AUTO else settings.input_size
        for name, settings in parameters.distill.students.items()
    }
    candidates = candidate_sizes(parameters.search, chosen, student)
    return InputSizes(
        teacher=chosen,
        low_resolution=low_resolution(chosen) if parameters.finetune.low_resolution_share else chosen,
        student=student,
        students=students,
        candidates=candidates,
        rivals=sizes_of_rivals(parameters.prune, chosen, students, candidates),
    )


def sizes_of_rivals(settings: Prune, teacher: int, students: dict[str, int], candidates: list[int]) -> list[int]:
    """Return the edge lengths that the rivals of pruned models may take, ascending."""
    if settings.baseline != "resolution":
        return []
    # A control is as large as its student; how large the search's students are is not known yet.
    known = {TEACHER: [teacher]} | {
        name: [size] for student, size in students.items() for name in (student, untaught(student))
    }
    pruned = (size for name in settings.models for size in known.get(name, candidates))
    return sorted({smaller for size in pruned for smaller in rival_sizes(size)})


def candidate_sizes(settings: Search, teacher: int, student: int) -> list[int]:
    """Return the edge lengths that the candidates of a search may take, ascending; none without a search."""
    if not settings.survivors:
        return []
    # Which family "auto" means depends on the number of training images, which is not known yet.
    sizes = {"residual": residual_sizes(student), "backbone": backbone_sizes(teacher)}
    families = sizes if settings.families == AUTO else settings.families
    return sorted({size for family in families for size in sizes[family]})


def without_classes(records: list[Record], ignore: list[str]) -> tuple[list[Record], dict[str, int]]:
    """Return the records without those of the classes in `ignore`, and how many those were by class.

    Raises KingletError if a class to ignore does not exist or nothing is left.
    """
    ignored = Counter(dict.fromkeys(ignore, 0))
    ignored.update(record.label for record in records if record.label in ignore)
    unknown = sorted(label for label, count in ignored.items() if count == 0)
    if unknown:
        known = ", ".join(sorted({record.label for record in records} - {""}))
        raise KingletError(f"data.ignore_classes names {', '.join(unknown)}, but the classes are: {known}.")
    kept = [record for record in records if record.label not in ignored]
    if not kept:
        raise KingletError("data.source: no image is left.", "Take a class out of data.ignore_classes.")
    return kept, dict(sorted(ignored.items()))


def tell(source: Source, ignored: dict[str, int]) -> None:
    """Print to stderr what the user should know about the source: notes and all that is left out."""
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    for reason, names in source.left_out.items():
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        print(f"note: {reason}: {', '.join(names[:5])}{more}", file=sys.stderr)
    for label, count in ignored.items():
        print(f"note: class {label!r} is left out with its {count} images (data.ignore_classes)", file=sys.stderr)


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


if __name__ == "__main__":
    run_stage(run)
