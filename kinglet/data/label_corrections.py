"""What a person decided about suspicious labels: a CSV file that the source's records are read through."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

from kinglet.data.sources.records import Record
from kinglet.errors import KingletError

COLUMNS = ("path", "label", "new_label", "confidence", "decision")
KEEP, RELABEL, DROP, UNDECIDED = "keep", "relabel", "drop", ""
DECISIONS = (KEEP, RELABEL, DROP, UNDECIDED)
DROPPED = "images dropped by data.label_corrections"


@dataclass(frozen=True)
class Correction:
    """One row of the file.

    path: of the image in the manifest. label: that the source gives it. new_label: what `relabel` makes of it.
    confidence: of the models in new_label, as text. decision: keep, relabel, drop, or "" as long as nobody decided.
    place: where it stands, for messages.
    """

    path: str
    label: str
    new_label: str
    confidence: str
    decision: str
    place: str = ""


def read_corrections(location: str) -> list[Correction]:
    """Return the rows of a file of corrections, none for the location "".

    Raises KingletError, with the line, for a file that is missing or no such table, an unknown decision, a row
    without path or label, a relabelling without a new label, and two rows about one image.
    """
    if not location:
        return []
    path = Path(location)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise KingletError(
                    f"data.label_corrections: {path}, line 1: column {' and '.join(map(repr, missing))} is missing.",
                    f"The first line is: {','.join(COLUMNS)}. `kinglet labels review` writes such a file.",
                )
            rows = [correction_of(values, f"{path}, line {reader.line_num}") for values in reader]
    except FileNotFoundError:
        raise KingletError(
            f"data.label_corrections: {path} does not exist.",
            f"`kinglet labels review` writes it; a file with the line {','.join(COLUMNS)} alone corrects nothing.",
        ) from None
    except (IsADirectoryError, UnicodeDecodeError, csv.Error) as error:
        raise KingletError(f"data.label_corrections: {path} is not a readable CSV file: {error}.") from None
    seen: dict[str, Correction] = {}
    for row in rows:
        if row.path in seen:
            raise KingletError(f"{row.place}: {row.path} stands in {seen[row.path].place} already.", "Keep one row.")
        seen[row.path] = row
    return rows


def correction_of(values: dict[str, str | None], place: str) -> Correction:
    """Return a row's values, stripped; raises KingletError for what cannot be followed."""
    found = {name: (values.get(name) or "").strip() for name in COLUMNS}
    found["decision"] = found["decision"].lower()
    if not found["path"] or not found["label"]:
        raise KingletError(f"{place}: the {'label' if found['path'] else 'path'} is empty.", "Remove the row.")
    if found["decision"] not in DECISIONS:
        raise KingletError(
            f"{place}: the decision is {found['decision']!r}; allowed: keep, relabel, drop or nothing.",
        )
    if found["decision"] == RELABEL and not found["new_label"]:
        raise KingletError(f"{place}: relabel without a new label.", "Write the class into the column new_label.")
    return Correction(**found, place=place)


def correct(records: list[Record], corrections: list[Correction]) -> tuple[list[Record], list[str]]:
    """Return the records with the decisions carried out, and the paths of those that were dropped.

    Raises KingletError, with the line, for an image that the source does not hold or gives another label, and for a
    new label that is no class of the source. A relabelling that the source has meanwhile itself is done already.
    """
    decided = {item.path: item for item in corrections if item.decision in (RELABEL, DROP)}
    classes = {record.label for record in records} - {""}
    label_of = {record.path: record.label for record in records}
    for item in decided.values():
        if item.path not in label_of:
            raise KingletError(f"{item.place}: data.source holds no image {item.path}.", "Remove the row.")
        if label_of[item.path] not in (item.label, item.new_label if item.decision == RELABEL else item.label):
            raise KingletError(
                f"{item.place}: {item.path} is said to carry the label {item.label!r}, "
                f"but data.source gives it {label_of[item.path]!r}.",
                "Look at the image again, and write its label of now into the row or remove it.",
            )
        if item.decision == RELABEL and item.new_label not in classes:
            raise KingletError(
                f"{item.place}: the new label {item.new_label!r} is no class; classes: {', '.join(sorted(classes))}."
            )
    dropped = [record.path for record in records if decided.get(record.path, Correction(*[""] * 5)).decision == DROP]
    kept = [
        replace(record, label=decided[record.path].new_label) if record.path in decided else record
        for record in records
        if record.path not in set(dropped)
    ]
    return kept, dropped


def merged(corrections: list[Correction], suspicious: list[Correction]) -> list[Correction]:
    """Return the corrections with the suspicious images added that they do not decide about yet.

    Decisions stay; rows without one that is suspicious no more go.
    """
    decided = [item for item in corrections if item.decision != UNDECIDED]
    paths = {item.path for item in decided}
    return [*decided, *(item for item in suspicious if item.path not in paths)]
