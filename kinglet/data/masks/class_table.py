"""What the pixels of masks mean, where a data set says it: a table of classes with numbers or colours.

| file | what it holds |
|---|---|
| classes.csv, class_dict.csv, _classes.csv, label_colors.csv | columns name, and value and/or r, g, b |
| label_colors.txt | red, green, blue and name, a line each, as CamVid has it |
| labelmap.txt | name:red,green,blue:parts:actions, as CVAT has it |
| classes.txt | a name a line, the first of the number 0 |

Source: https://docs.cvat.ai/docs/dataset_management/formats/format-smask
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kinglet.errors import KingletError

Color = tuple[int, int, int]

TABLES = ("classes.csv", "class_dict.csv", "_classes.csv", "label_colors.csv")
LISTS = ("label_colors.txt", "label_colours.txt", "labelmap.txt", "classes.txt")
WHAT_A_TABLE_IS = "Write a line for each class under the head `name,r,g,b` or `name,value`."

NAMES = ("name", "class", "class name", "label")
NUMBERS = ("value", "pixel value", "index", "id", "png index")
CHANNELS = (("r", "red"), ("g", "green"), ("b", "blue"))

_COLOR_FIRST = re.compile(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(\S.*)")
_NAME_FIRST = re.compile(r"([^:]+):(\d+),(\d+),(\d+)(?::.*)?")


@dataclass(frozen=True)
class ClassRow:
    """One line: the class, its number in masks of numbers (0 to 65535), its colour in those of colours, if any."""

    name: str
    value: int
    color: Color | None


@dataclass(frozen=True)
class ClassTable:
    """A table of classes. file: where it was read. rows: in its order; rows of one name are one class."""

    file: str
    rows: tuple[ClassRow, ...]

    @property
    def has_colors(self) -> bool:
        """Whether the table gives colours; it does for all rows or for none."""
        return self.rows[0].color is not None

    @property
    def has_gray_colors_only(self) -> bool:
        """Whether all colours are shades of gray, so that gray masks may be meant by them."""
        return self.has_colors and all(row.color is not None and len(set(row.color)) == 1 for row in self.rows)


def find_class_table(root: Path, paths: list[str]) -> ClassTable | None:
    """Return the table of classes below `root`, None if there is none.

    paths: of all files, relative, with forward slashes. Several tables, as of the parts of a split, must say the same.
    Raises KingletError, with file and line, for a table that cannot be read, and for two that say different things.
    """
    found: ClassTable | None = None
    for path in sorted(paths, key=lambda path: (path.count("/"), path)):
        name = PurePosixPath(path).name.lower()
        if name not in (*TABLES, *LISTS):
            continue
        table = ClassTable(path, tuple(_checked(path, _rows(root / path, path, name in TABLES))))
        if found is not None and table.rows != found.rows:
            raise KingletError(f"{found.file} and {path} name different classes.", "Keep the one that is right.")
        found = found or table
    return found


def _rows(file: Path, path: str, is_csv: bool) -> Iterator[tuple[int, ClassRow]]:
    """Yield (line, row) of one file."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise KingletError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from None
    yield from _rows_of_csv(text, path) if is_csv else _rows_of_list(text, path)


def _rows_of_csv(text: str, path: str) -> Iterator[tuple[int, ClassRow]]:
    lines = csv.reader(text.splitlines(), delimiter=";" if ";" in text.split("\n", 1)[0] else ",")
    head = [" ".join(word.strip().lower().replace("_", " ").split()) for word in next(lines, [])]
    name = _column(head, NAMES)
    if name is None:
        raise KingletError(f"{path}, line 1 names no column of class names, such as name.", WHAT_A_TABLE_IS)
    number, channels = _column(head, NUMBERS), [_column(head, words) for words in CHANNELS]
    for position, cells in enumerate(filter(any, lines)):
        place, given = f"{path}, line {lines.line_num}", [*map(str.strip, cells), *[""] * len(head)]
        value = _number(given[number], place, 65535) if number is not None else position
        color = tuple(_number(given[column], place, 255) for column in channels if column is not None)
        yield lines.line_num, ClassRow(given[name], value, color if len(color) == 3 else None)


def _rows_of_list(text: str, path: str) -> Iterator[tuple[int, ClassRow]]:
    position = 0
    for line, content in enumerate(text.splitlines(), start=1):
        row = content.strip()
        if not row or row.startswith("#"):
            continue
        color: Color | None = None
        place = f"{path}, line {line}"
        if found := _COLOR_FIRST.fullmatch(row):
            color, row = _color(found.groups()[:3], place), found[4]
        elif found := _NAME_FIRST.fullmatch(row):
            color, row = _color(found.groups()[1:4], place), found[1]
        yield line, ClassRow(row.strip(), position, color)
        position += 1


def _checked(path: str, rows: Iterator[tuple[int, ClassRow]]) -> Iterator[ClassRow]:
    """Yield the rows; raises KingletError for one without a name, or with a number or colour of another class."""
    values: dict[int, str] = {}
    colors: dict[Color | None, str] = {}
    for line, row in rows:
        place = f"{path}, line {line}"
        if not row.name:
            raise KingletError(f"{place} has no name.", WHAT_A_TABLE_IS)
        if colors and (row.color is None) != (None in colors):
            raise KingletError(f"{place} has a colour where others have none, or none where others have one.")
        if values.setdefault(row.value, row.name) != row.name:
            raise KingletError(f"{place} repeats the value {row.value} of {values[row.value]!r}.")
        if colors.setdefault(row.color, row.name) != row.name and row.color is not None:
            raise KingletError(f"{place} repeats the colour {row.color} of {colors[row.color]!r}.")
        yield row
    if not values:
        raise KingletError(f"{path} names no class.", WHAT_A_TABLE_IS)


def _column(head: list[str], words: tuple[str, ...]) -> int | None:
    return next((head.index(word) for word in words if word in head), None)


def _color(words: tuple[str, ...], place: str) -> Color:
    red, green, blue = (_number(word, place, 255) for word in words)
    return red, green, blue


def _number(word: str, place: str, most: int) -> int:
    if not word.isdecimal() or int(word) > most:
        raise KingletError(f"{place}: {word!r} is no whole number from 0 to {most}.", WHAT_A_TABLE_IS)
    return int(word)
