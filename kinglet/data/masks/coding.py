"""From what masks hold, numbers or colours, to the index of a class for every pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinglet.data.masks.class_table import ClassTable
from kinglet.data.masks.faults import UNKNOWN_CODE, VOID, UnusableMaskError
from kinglet.data.masks.stored_masks import StoredMask
from kinglet.errors import KingletError

BACKGROUND, FOREGROUND = "background", "foreground"
# Names in a table of classes that stand for no class.
VOID_NAMES = {"ignore", "ignored", "unlabeled", "unlabelled", "void"}
MOST_CLASSES = 254
# Numbers without a table that says what they mean: smoothed edges and photographs hold nearly all there are.
MOST_UNNAMED = 200


@dataclass(frozen=True)
class Coding:
    """What the codes of a data set's masks mean.

    classes: in the order of their index. of_number, of_color: {code: index of a class, or VOID}. by_color: whether RGB
    and palette files are read as colours.
    """

    classes: tuple[str, ...]
    of_number: Mapping[int, int]
    of_color: Mapping[int, int]
    by_color: bool

    def encode(self, mask: StoredMask) -> NDArray[np.uint8]:
        """Return the index of the class of every pixel, or VOID, uint8 (height, width).

        Raises UnusableMaskError, with the first place of it, for a code that no class has.
        """
        known = self.of_color if mask.is_colored else self.of_number
        keys = np.array(sorted(known) or [-1], np.int32)
        indices = np.array([known.get(key, VOID) for key in keys.tolist()], np.uint8)
        place = np.searchsorted(keys, mask.codes).clip(0, len(keys) - 1)
        wrong = keys[place] != mask.codes
        if wrong.any():
            row, column = (int(position[0]) for position in np.nonzero(wrong))
            code = code_in_words(int(mask.codes[row, column]), mask.is_colored)
            raise UnusableMaskError(
                f"holds {code}, which is that of no class, in {int(wrong.sum())} pixels, the first at column {column}, "
                f"row {row}",
                UNKNOWN_CODE,
            )
        return indices[place]

    def index_counts(self, counts: Mapping[int, int], is_colored: bool) -> tuple[NDArray[np.int64], int]:
        """Return the pixels of each class, int64 (n_classes,), and those that are void, of a mask's known codes."""
        known = self.of_color if is_colored else self.of_number
        pixels = np.zeros(VOID + 1, np.int64)
        for code, count in counts.items():
            pixels[known[code]] += count
        return pixels[: len(self.classes)], int(pixels[VOID])

    def without(self, names: Iterable[str]) -> Coding:
        """Return the coding in which these classes are void and the others keep their order."""
        left_out = set(names)
        kept = tuple(name for name in self.classes if name not in left_out)
        index = {self.classes.index(name): position for position, name in enumerate(kept)}
        number = {code: index.get(old, VOID) for code, old in self.of_number.items()}
        color = {code: index.get(old, VOID) for code, old in self.of_color.items()}
        return Coding(kept, number, color, self.by_color)


def code_in_words(code: int, is_color: bool) -> str:
    """Return what a mask holds in a pixel, as text."""
    return f"the colour {code >> 16, code >> 8 & 255, code & 255}" if is_color else f"the value {code}"


def coding_of_table(table: ClassTable) -> Coding:
    """Return what a table says; 255 is void unless the table gives it to a class.

    Raises KingletError for more classes than an index has room for.
    """
    names = tuple(dict.fromkeys(row.name for row in table.rows if row.name.lower() not in VOID_NAMES))
    if len(names) > MOST_CLASSES:
        raise KingletError(f"{table.file} names {len(names)} classes; at most {MOST_CLASSES} can be learned.")
    index = {name: position for position, name in enumerate(names)}
    color = {
        red << 16 | green << 8 | blue: index.get(row.name, VOID)
        for row in table.rows
        if row.color is not None
        for red, green, blue in [row.color]
    }
    if table.has_gray_colors_only:
        number = {code & 255: position for code, position in color.items()}
    else:
        number = {row.value: index.get(row.name, VOID) for row in table.rows}
    return Coding(names, {VOID: VOID} | number, color, table.has_colors)


def coding_of_numbers(numbers: Iterable[int]) -> Coding:
    """Return what numbers mean that no table explains.

    0 and the highest number there is (255, or 65535 in 16 bits) alone are background and foreground, and so are 0 and
    1. Otherwise each number is a class called after it, ascending, and 255 is void.
    Raises KingletError for more numbers than classes can be meant by.
    """
    found = sorted(set(numbers))
    if found in ([0, VOID], [0, 65535], [VOID], [65535]):
        return Coding((BACKGROUND, FOREGROUND), {0: 0, found[-1]: 1}, {}, False)
    values = [number for number in found if number != VOID]
    if len(values) > MOST_UNNAMED:
        raise KingletError(
            f"The masks hold {len(values)} different values, and no table says what they mean.",
            "Save masks without smoothed edges, or add classes.csv with the columns name and value.",
        )
    names = (BACKGROUND, FOREGROUND) if values == [0, 1] else tuple(map(str, values))
    return Coding(names, {VOID: VOID} | {value: index for index, value in enumerate(values)}, {}, False)
