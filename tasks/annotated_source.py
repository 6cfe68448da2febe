"""What sources of boxes and of masks have in common: a folder, notes on what is left out of it, sizes of students."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from kinglet.data.annotations.boxes import Finding
from kinglet.data.label_corrections import read_corrections
from kinglet.data.sources import kind_of, open_unlabelled
from kinglet.errors import KingletError
from tasks.data_settings import Data
from tasks.settings_section import AUTO
from tasks.training_settings import Student

FINDINGS_SHOWN = 5


def refuse_corrections(data: Data, problem: str) -> None:
    """Raise KingletError if labels of whole images are to be corrected: boxes and masks have others."""
    corrections = read_corrections(data.label_corrections)
    if corrections:
        raise KingletError(
            f"{corrections[0].place}: a correction of an image's label, and problem is {problem}.",
            "Correct annotations where they are drawn, and name a file without rows in data.label_corrections.",
        )


def folder_of(location: str, things: str, what_is_read: str) -> Path:
    """Return the folder of a data set; raises KingletError for a source of another kind.

    things: boxes or masks. what_is_read: the hint.
    """
    kind = kind_of(location)
    if kind != "folder":
        raise KingletError(f"data.source: {location} is a {kind}, which holds no {things}.", what_is_read)
    return Path(location)


def notes_on_unlabelled(location: str, why: str) -> list[str]:
    """Return in words that images without a label are not learned from, nothing where there are none."""
    count = len(open_unlabelled(location).records) if location else 0
    return [f"{count} images in {location} are not used: {why}"] if count else []


def tell_findings(what: str, findings: Sequence[Finding]) -> None:
    """Print to stderr how many findings there are, and the first of them with their places."""
    if findings:
        shown = "; ".join(f"{finding.place}: {finding.reason}" for finding in findings[:FINDINGS_SHOWN])
        more = f"; and {len(findings) - FINDINGS_SHOWN} more" if len(findings) > FINDINGS_SHOWN else ""
        print(f"note: {len(findings)} {what}: {shown}{more}", file=sys.stderr)


def sizes_of_students(students: dict[str, Student], teacher: int, smallest: int) -> dict[str, int]:
    """Return the edge length in pixels that each student takes images at; "auto" is the teacher's, in `teacher`.

    The teacher answers the very pictures that a student learns from, place by place, so both see as many pixels.
    smallest: the size down to which it can.
    Raises KingletError for a student of another size.
    """
    sizes = {name: teacher if one.input_size == AUTO else one.input_size for name, one in students.items()}
    for name, size in sizes.items():
        if not smallest <= size <= teacher:
            raise KingletError(
                f"params.yaml: distill.students.{name}.input_size is {size}, and the teacher, which takes {teacher} "
                f"pixels, can teach at {f'{smallest} to {teacher}' if smallest < teacher else teacher} only.",
                f"Take {f'a multiple of 32 from {smallest} to {teacher}, or ' if smallest < teacher else ''}auto, or "
                "change finetune.input_size.",
            )
    return sizes
