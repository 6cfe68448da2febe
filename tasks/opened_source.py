"""What `ingest` packs: the images that a source holds, and at which sizes. Here for images that have one class each.

Images with boxes are opened by `tasks.detection_source`, those with masks by `tasks.segmentation_source`, clips of
videos by `tasks.clip_source`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from kinglet.data.label_corrections import DROPPED, correct, read_corrections
from kinglet.data.packing import Job, pack, usual_short_side
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
from tasks.artifacts import TEACHER, InputSizes, untaught
from tasks.compression_settings import Prune
from tasks.data_settings import Data
from tasks.parameters import Parameters
from tasks.settings_section import AUTO
from tasks.training_settings import Search, Student


def nothing_to_write(_rows: list[dict[str, Any]]) -> None:
    """Write nothing: what an image is labelled with stands in the manifest."""


@dataclass(frozen=True)
class OpenedSource:
    """A source whose images are to be packed.

    source: with the records that are kept. unlabelled: images without a label, packed behind them. ignored: {class:
    how often it occurred} of `data.ignore_classes`. short_side: the images' usual one, in pixels. write_annotations:
    writes boxes or masks, given the manifest's rows of the records. facts: what source.json says besides. pack: decodes
    and packs the records of a job. frames: of each clip, 0 for images.
    """

    source: Source
    unlabelled: Source
    ignored: dict[str, int]
    short_side: int
    input_sizes: InputSizes
    write_annotations: Callable[[list[dict[str, Any]]], None] = nothing_to_write
    facts: dict[str, Any] = field(default_factory=dict)
    pack: Callable[[Job], list[dict[str, Any]]] = pack
    frames: int = 0


def open_classified(parameters: Parameters) -> OpenedSource:
    """Return the source of images that have a class each, and print what is left out of it.

    Raises KingletError for a source, corrections or ignored classes that cannot be followed.
    """
    data = parameters.data
    source, ignored = as_decided(open_source(data.source, data.images), data)
    tell(source, ignored)
    unlabelled = open_unlabelled(data.unlabelled) if data.unlabelled else Source("unlabelled", [], source.read)
    short_side = usual_short_side(source.records, source.read, data.max_pixels)
    return OpenedSource(source, unlabelled, ignored, short_side, choose_sizes(parameters, short_side))


def as_decided(source: Source, data: Data) -> tuple[Source, dict[str, int]]:
    """Return a source with labels corrected and classes left out as the settings say, and how often those occurred.

    Raises KingletError for corrections or ignored classes that cannot be followed.
    """
    records, dropped = correct(source.records, read_corrections(data.label_corrections))
    if dropped:
        source = replace(source, left_out={**source.left_out, DROPPED: dropped})
    records, ignored = without_classes(records, data.ignore_classes)
    return replace(source, records=records), ignored


def choose_sizes(parameters: Parameters, short_side: int) -> InputSizes:
    """Return the edge lengths that the models take, those left to "auto" chosen for images of this short side."""
    teacher = parameters.finetune.input_size
    chosen = teacher_size(short_side) if teacher == AUTO else teacher
    student = student_size(short_side)
    students = {
        name: size_of_student(settings, chosen, student) for name, settings in parameters.distill.students.items()
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


def size_of_student(settings: Student, teacher: int, anew: int) -> int:
    """Return the edge length that a student takes, that of the teacher where "auto" and on a pretrained backbone.

    anew: what "auto" is for students that learn from random weights.
    """
    if settings.input_size != AUTO:
        return settings.input_size
    return anew if settings.backbone is None else teacher


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


def tell(source: Source, ignored: dict[str, int], things: str = "images") -> None:
    """Print to stderr what the user should know about the source: notes and all that is left out.

    things: what the counts of the ignored classes are counts of.
    """
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    for reason, names in source.left_out.items():
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        print(f"note: {reason}: {', '.join(names[:5])}{more}", file=sys.stderr)
    for label, count in ignored.items():
        print(f"note: class {label!r} is left out with its {count} {things} (data.ignore_classes)", file=sys.stderr)
