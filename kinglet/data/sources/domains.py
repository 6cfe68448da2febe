"""Which domain (camera, site, season) the images or videos of a folder are of: a file domains.csv in it.

A folder has no table that could say it. A row names an image or a video, or a folder in which all are of the domain.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kinglet.errors import KingletError

NAMES = "domains.csv"
COLUMNS = ("path", "domain")


@dataclass(frozen=True)
class NamedDomains:
    """The domains of a data set. by_path: {path of an image, a video or a folder, relative, with forward
    slashes: domain}.
    """

    by_path: dict[str, str]

    def of(self, path: str) -> str:
        """Return the domain of an image or a video, "" where none is named; the nearest row above counts."""
        named = PurePosixPath(path)
        above = (str(place) for place in (named, *named.parents))
        return next((self.by_path[place] for place in above if place in self.by_path), "")


def read_domains(root: Path) -> NamedDomains:
    """Return the domains of what lies below a folder, none where it holds no domains.csv.

    Raises KingletError with file and line for a column that is missing, an empty cell, a path that is not there or
    has two domains, and a file that is no CSV.
    """
    file = root / NAMES
    if not file.is_file():
        return NamedDomains({})
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened, strict=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise KingletError(
                    f"{file}, line 1: column {' and '.join(map(repr, missing))} is missing.",
                    f"The first line names the columns: {','.join(COLUMNS)}.",
                )
            found: dict[str, str] = {}
            for row in reader:
                add_row(found, row, root, f"{file}, line {reader.line_num}")
    except UnicodeDecodeError as error:
        raise KingletError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}.") from None
    except csv.Error as error:
        raise KingletError(f"{file}, line {reader.line_num}: {error}.") from None
    return NamedDomains(found)


def add_row(found: dict[str, str], row: dict[str, str | None], root: Path, place: str) -> None:
    """Add one row to the domains; raises KingletError if it cannot be understood. place: for the sentence."""
    path, domain = ((row.get(name) or "").strip() for name in COLUMNS)
    if not path or not domain:
        raise KingletError(f"{place}: path or domain is empty.", "Fill it in or remove the row.")
    path = str(PurePosixPath(path.replace("\\", "/")))
    if not (root / path).exists():
        raise KingletError(f"{place}: {path} is not in {root}.", "Name a file or a folder, relative to this file.")
    if found.setdefault(path, domain) != domain:
        raise KingletError(f"{place}: {path} is of the domain {found[path]!r} before, and {domain!r} here.")
