"""What sources of boxes and of masks have in common: a folder, and notes on what is left out of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from kinglet.data.annotations.boxes import Finding
from kinglet.data.label_corrections import read_corrections
from kinglet.data.sources import kind_of, open_unlabelled
from kinglet.errors import KingletError
from tasks.data_settings import Data

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
