"""What numbers and colours mean, with and without a table of classes."""

from __future__ import annotations

import numpy as np
import pytest

from kinglet.data.masks.class_table import ClassRow, ClassTable
from kinglet.data.masks.coding import coding_of_numbers, coding_of_table
from kinglet.data.masks.faults import UNKNOWN_CODE, VOID, UnusableMaskError
from kinglet.data.masks.stored_masks import StoredMask
from kinglet.errors import KingletError


def gray(*numbers: int) -> StoredMask:
    return StoredMask(np.array([numbers], np.int32), False)


def colored(*colors: tuple[int, int, int]) -> StoredMask:
    return StoredMask(np.array([[red << 16 | green << 8 | blue for red, green, blue in colors]], np.int32), True)


@pytest.mark.parametrize(
    ("numbers", "names", "indices"),
    [
        ([0, 255], ("background", "foreground"), [0, 1]),
        ([255], ("background", "foreground"), [1]),
        ([0, 65535], ("background", "foreground"), [0, 1]),
        ([0, 1], ("background", "foreground"), [0, 1]),
        ([0, 1, 255], ("background", "foreground"), [0, 1, VOID]),
        ([1, 2], ("1", "2"), [0, 1]),
        ([0, 7, 300], ("0", "7", "300"), [0, 1, 2]),
    ],
)
def test_numbers_without_a_table(numbers: list[int], names: tuple[str, ...], indices: list[int]) -> None:
    coding = coding_of_numbers(numbers)
    assert coding.classes == names
    assert coding.encode(gray(*numbers)).tolist() == [indices]


def test_hundreds_of_numbers_without_a_table_are_no_classes() -> None:
    with pytest.raises(KingletError, match="hold 255 different values, and no table says what they mean"):
        coding_of_numbers(range(256))


def test_a_table_of_colours_merges_rows_of_one_name_and_leaves_void_out() -> None:
    rows = [("Void", (0, 0, 0)), ("road", (1, 2, 3)), ("car", (4, 5, 6)), ("road", (7, 8, 9))]
    coding = coding_of_table(ClassTable("t", tuple(ClassRow(name, i, color) for i, (name, color) in enumerate(rows))))
    assert coding.classes == ("road", "car")
    assert coding.encode(colored((0, 0, 0), (7, 8, 9), (4, 5, 6), (1, 2, 3))).tolist() == [[VOID, 0, 1, 0]]
    # Gray masks beside a table of colours hold the numbers of its rows.
    assert coding.encode(gray(0, 1, 2, 3, 255)).tolist() == [[VOID, 0, 1, 0, VOID]]


def test_gray_masks_are_meant_by_gray_colours() -> None:
    rows = (ClassRow("off", 0, (0, 0, 0)), ClassRow("on", 1, (255, 255, 255)))
    coding = coding_of_table(ClassTable("t", rows))
    assert coding.encode(gray(0, 255)).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (gray(0, 1, 9, 9), r"holds the value 9, which is that of no class, in 2 pixels, the first at column 2, row 0"),
        (colored((1, 1, 1), (9, 8, 7)), r"holds the colour \(9, 8, 7\), which is that of no class, in 1 pixels"),
    ],
)
def test_a_code_of_no_class_is_named_with_its_place(mask: StoredMask, said: str) -> None:
    coding = coding_of_table(ClassTable("t", (ClassRow("a", 0, (1, 1, 1)), ClassRow("b", 1, (2, 2, 3)))))
    with pytest.raises(UnusableMaskError, match=said) as caught:
        coding.encode(mask)
    assert caught.value.fault == UNKNOWN_CODE


def test_counts_are_those_of_the_encoded_mask() -> None:
    mask = gray(0, 1, 1, 5, 5, 5, 255)
    coding = coding_of_numbers([0, 1, 5, 255])
    pixels, void = coding.index_counts(mask.counts(), is_colored=False)
    encoded = coding.encode(mask)
    assert pixels.tolist() == [int((encoded == index).sum()) for index in range(3)]
    assert void == (encoded == VOID).sum()


def test_classes_that_are_left_out_become_void_and_the_others_move_up() -> None:
    coding = coding_of_numbers([0, 1, 5]).without(["1"])
    assert coding.classes == ("0", "5")
    assert coding.encode(gray(0, 1, 5)).tolist() == [[0, VOID, 1]]
    again = coding.without(["0"])
    assert again.encode(gray(0, 1, 5)).tolist() == [[VOID, VOID, 0]]
