"""A CSV or Parquet table with one row per image: path, label and, if wanted, group, domain, split and others."""

from __future__ import annotations

import csv
import errno
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kinglet.data.sources.folder import list_files, read_file
from kinglet.data.sources.layout import HIDDEN, has_image_suffix, is_hidden
from kinglet.data.sources.records import SPLIT_NAMES, Record, Source, printable
from kinglet.errors import KingletError

if TYPE_CHECKING:
    import pyarrow

REQUIRED = ("path", "label")
OPTIONAL = ("group", "domain", "split")


@dataclass(frozen=True)
class Row:
    """One row of a table: where it stands ("line 7" or "row 7") and its values, stripped, "" where absent.

    further: the other columns, as (name, value).
    """

    place: str
    path: str
    label: str
    group: str
    domain: str
    split: str
    further: tuple[tuple[str, str], ...] = ()


def open_table(location: str, images: str) -> Source:
    """Return the source of a table of paths and labels.

    A relative path is looked for in the folder `images`, then in the table's own folder. Images in
    those folders that no row names become records with the problem "no label".
    Raises KingletError, with the table's name and the line, for a missing column, an empty path or
    label, an unknown split, a file that does not exist, and rows that contradict each other.
    """
    table = Path(location)
    rows, repeated = without_repetitions(read_rows(table), location)
    folders = [Path(images), table.parent]
    records, missing, used = [], [], set()
    for row in rows:
        home = next((folder for folder in folders if is_file(folder / row.path)), None)
        if home is None:
            missing.append(row)
            continue
        records.append(record_of(row, home))
        if not Path(row.path).is_absolute():
            used.add(home)
    refuse_missing(missing, location, folders)
    notes = [f"{location}: {repeated} rows repeat another one and count once."] if repeated else []
    watched = Path(images).resolve()
    if any(not Path(record.location).resolve().is_relative_to(watched) for record in records):
        notes.append(
            f"{location} names images outside of data.images ({images}); changes of those images go unnoticed. "
            "Set data.images to the folder they lie in."
        )
    unlabelled, hidden = unlabelled_records(sorted(used), records)
    records = sorted([*records, *unlabelled], key=lambda record: record.path)
    return Source("table", records, partial(read_file, ""), left_out={HIDDEN: hidden} if hidden else {}, notes=notes)


def read_rows(table: Path) -> list[Row]:
    """Return the rows of a table; raises KingletError for one that cannot be read, lacks a column or has no rows."""
    rows = read_parquet(table) if table.suffix.lower() == ".parquet" else read_csv(table)
    if not rows:
        raise KingletError(f"data.source: {table} has no rows.", "One row per image or video: path,label.")
    return rows


def read_csv(table: Path) -> list[Row]:
    """Return the rows of a CSV file."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            refuse_missing_columns(reader.fieldnames or [], f"{table}, line 1")
            return [row_of(values, f"line {reader.line_num}", table) for values in reader]
    except UnicodeDecodeError as error:
        raise KingletError(f"{table} is not UTF-8 text: {error.reason} at byte {error.start}.") from None
    except csv.Error as error:
        raise KingletError(f"{table}, line {reader.line_num}: {error}.") from None


def read_parquet(table: Path) -> list[Row]:
    """Return the rows of a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    try:
        content = pyarrow.parquet.read_table(table)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise KingletError(f"{table} is not a readable Parquet file: {str(error).splitlines()[0]}") from None
    refuse_missing_columns(content.column_names, str(table))
    # Pictures, lists and the like are nothing that images could be told apart by.
    names = content.column_names
    plain = [field.name for field in content.schema if is_plain(field.type) and names.count(field.name) == 1]
    rows = content.select([name for name in names if name in {*REQUIRED, *OPTIONAL, *plain}]).to_pylist()
    return [
        row_of({key: "" if value is None else str(value) for key, value in values.items()}, f"row {number}", table)
        for number, values in enumerate(rows, start=1)
    ]


def is_plain(kind: pyarrow.DataType) -> bool:
    """Return whether values of an Arrow type are words, numbers, truth values or days."""
    from pyarrow import types

    tests = (types.is_string, types.is_large_string, types.is_boolean, types.is_integer, types.is_floating)
    return any(test(kind) for test in (*tests, types.is_dictionary, types.is_temporal))


def refuse_missing_columns(columns: Sequence[str], place: str) -> None:
    """Raise KingletError if a required column is not there."""
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise KingletError(
            f"{place}: column {' and '.join(map(repr, missing))} is missing; found: {', '.join(columns) or 'nothing'}.",
            f"The first line names the columns: {','.join(REQUIRED)} and, if wanted, {','.join(OPTIONAL)}.",
        )


def row_of(values: dict[str | None, str | None] | dict[str, str], place: str, table: Path) -> Row:
    """Return a row's values; raises KingletError for one that is empty or unknown."""
    found = {name: (values.get(name) or "").strip() for name in (*REQUIRED, *OPTIONAL)}
    for name in REQUIRED:
        if not found[name]:
            raise KingletError(f"{table}, {place}: the {name} is empty.", "Fill it in or remove the row.")
    split = found["split"].lower()
    if split and split not in SPLIT_NAMES:
        raise KingletError(
            f"{table}, {place}: split is {found['split']!r}; allowed: train, validation, test or nothing."
        )
    # Under None, csv keeps what stands in a line beyond the last column.
    others = [name for name in values if name and name.strip() and name not in found]
    further = tuple((name.strip(), str(values[name] or "").strip()) for name in others)
    path = found["path"].replace("\\", "/")
    return Row(place, path, found["label"], found["group"], found["domain"], split, further)


def without_repetitions(rows: list[Row], location: str) -> tuple[list[Row], int]:
    """Return the rows without those that say the same again, and how many those were.

    Raises KingletError for two rows that say different things about one path.
    """
    first: dict[str, Row] = {}
    for row in rows:
        known = first.setdefault(row.path, row)
        for name in ("label", "group", "domain", "split"):
            if getattr(known, name) != getattr(row, name):
                raise KingletError(
                    f"{location}, {row.place}: {row.path} has the {name} {getattr(row, name)!r}, "
                    f"but {getattr(known, name)!r} in {known.place}.",
                    "Keep one of the two rows.",
                )
        for (name, value), (_, before) in zip(row.further, known.further, strict=True):
            if value != before:
                raise KingletError(
                    f"{location}, {row.place}: {row.path} has the {name} {value!r}, but {before!r} in {known.place}.",
                    "Keep one of the two rows.",
                )
    return list(first.values()), len(rows) - len(first)


def is_file(path: Path) -> bool:
    """Return whether there is such a file; a name that is longer than any can be is none."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def record_of(row: Row, home: Path) -> Record:
    """Return the record of a row whose file lies in the folder `home`."""
    given_split = SPLIT_NAMES.get(row.split, "")
    return Record(row.path, str(home / row.path), row.label, row.group, row.domain, given_split, further=row.further)


def refuse_missing(missing: list[Row], location: str, folders: list[Path]) -> None:
    """Raise KingletError that names the rows whose file does not exist."""
    if not missing:
        return
    named = "; ".join(f"{row.place}: {row.path}" for row in missing[:5])
    more = f"; and {len(missing) - 5} more" if len(missing) > 5 else ""
    places = " or ".join(str(folder) for folder in dict.fromkeys(folders))
    raise KingletError(
        f"{location} names {len(missing)} files that do not exist in {places} ({named}{more}).",
        "Add the files, remove the rows, or set data.images to the folder they lie in.",
    )


def unlabelled_records(folders: list[Path], records: list[Record]) -> tuple[list[Record], list[str]]:
    """Return a record without label for every image in `folders` that no record names, and the hidden ones."""
    named = {Path(record.location).resolve() for record in records}
    found: dict[Path, Record] = {}
    taken = {record.path for record in records}
    hidden = []
    for folder in folders:
        for path in list_files(folder):
            file = (folder / path).resolve()
            if not has_image_suffix(path) or file in named or file in found:
                continue
            if is_hidden(path):
                hidden.append(printable(path))
                continue
            # Two folders can hold the same relative path; the second is then named in full.
            name = printable(path) if path not in taken else printable((folder / path).as_posix())
            taken.add(path)
            found[file] = Record(name, str(folder / path), problem="no label")
    return list(found.values()), sorted(hidden)
