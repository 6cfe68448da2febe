"""From suspicious labels to a file that a person decides in; no step of the run, but what `kinglet labels` does."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from kinglet.atomic import write_text
from kinglet.data.label_corrections import COLUMNS, UNDECIDED, Correction, merged, read_corrections
from kinglet.errors import KingletError
from tasks.artifacts import SUSPICIOUS_LABELS
from tasks.parameters import Parameters


@dataclass(frozen=True)
class Review:
    """What was written: how many images are still to be decided on, and on how many somebody has decided."""

    path: Path
    open: int
    decided: int


def review(parameters: Parameters, into: Path | None = None) -> Review:
    """Write suspicious labels and the decisions so far to `into`, or to the file in data.label_corrections.

    Raises KingletError if there is no list of suspicious labels, no file to write to, or one that is no such table.
    """
    location = str(into or parameters.data.label_corrections)
    if not location:
        raise KingletError(
            "There is no file to write the labels to.", "Name one in data.label_corrections of params.yaml."
        )
    path = Path(location)
    known = read_corrections(location) if path.exists() else []
    rows = merged(known, read_suspicious())
    write_text(path, as_csv(rows))
    n_open = sum(row.decision == UNDECIDED for row in rows)
    return Review(path, n_open, len(rows) - n_open)


def read_suspicious() -> list[Correction]:
    """Return the rows of suspicious.csv as corrections that nobody has decided on."""
    if not SUSPICIOUS_LABELS.exists():
        raise KingletError(
            f"{SUSPICIOUS_LABELS} does not exist: no run has looked for wrong labels yet.", "Run `make run` first."
        )
    with SUSPICIOUS_LABELS.open(encoding="utf-8", newline="") as file:
        return [
            Correction(row["path"], row["label"], row["likely_label"], row["confidence"], UNDECIDED)
            for row in csv.DictReader(file)
        ]


def as_csv(rows: list[Correction]) -> str:
    """Return the text of a file of corrections."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(row, name) for name in COLUMNS] for row in rows)
    return written.getvalue()
