"""Which boxes are worth a second look, on boxes whose answer can be seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kinglet.data.annotations.box_quality import annotation_words, earlier_twins, input_scales, judge_boxes
from kinglet.runtime.preprocessing import resize

SQUARE = (0.0, 0.0, 10.0, 10.0)
NEARLY = (0.0, 0.0, 10.0, 9.5)


def table(*boxes: tuple[int, str, tuple[float, float, float, float]]) -> pd.DataFrame:
    rows = [(index, f"{index}.jpg", label, *xyxy) for index, label, xyxy in boxes]
    frame = pd.DataFrame(rows, columns=["index", "path", "label", "x1", "y1", "x2", "y2"])
    side = np.sqrt((frame["x2"] - frame["x1"]) * (frame["y2"] - frame["y1"]))
    return frame.assign(width=20, height=10, side=side, input_side=side / 2)


@pytest.mark.parametrize(
    ("boxes", "twins"),
    [
        ([(0, "cat", SQUARE), (0, "cat", NEARLY)], [-1, 0]),
        ([(0, "cat", SQUARE), (1, "cat", SQUARE)], [-1, -1]),
        ([(0, "cat", SQUARE), (0, "cat", (0.0, 0.0, 10.0, 5.0))], [-1, -1]),
        ([(0, "dog", SQUARE), (0, "cat", SQUARE), (0, "cat", NEARLY)], [-1, 0, 1]),
        ([(3, "cat", SQUARE), (5, "cat", SQUARE), (5, "dog", NEARLY)], [-1, -1, 1]),
        ([], []),
    ],
    ids=["drawn twice", "other image", "half", "its own class first", "rows, not places in the image", "none"],
)
def test_a_box_is_the_twin_of_an_earlier_one_of_its_image(
    boxes: list[tuple[int, str, tuple[float, float, float, float]]], twins: list[int]
) -> None:
    assert earlier_twins(table(*boxes), 0.9).tolist() == twins


def test_what_is_odd_is_said_in_words() -> None:
    boxes = table((0, "cat", SQUARE), (0, "dog", NEARLY), (1, "cat", (0, 0, 20, 10)), (2, "cat", (5.25, 1, 6.25, 2)))
    judged = judge_boxes(boxes, tiny_pixels=1, huge_share=0.95, same_object_iou=0.9)
    assert judged["remark"].tolist() == [
        "",
        "covers the same as 0.jpg: cat (0, 0, 10, 10)",
        "covers nearly the whole image",
        "tiny: 0.5 pixels at the network's input",
    ]
    assert judged["name"].iloc[3] == "2.jpg: cat (5.25, 1, 6.25, 2)"
    flags = judged[["tiny", "huge", "drawn_twice", "other_class"]].to_numpy()
    assert np.argwhere(flags).tolist() == [[1, 3], [2, 1], [3, 0]]


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_the_scale_is_that_of_the_resized_image(fit: str) -> None:
    """A bright square in the image covers as many pixels of the input as the scale says."""
    image = np.zeros((300, 400, 1), np.uint8)
    image[100:200, 100:300] = 255
    covered = (resize(image, 96, fit) > 127).sum()
    scale = input_scales(np.array([400, 0]), np.array([300, 0]), 96, fit)
    assert scale[0] * np.sqrt(100 * 200) == pytest.approx(np.sqrt(covered), rel=0.02)
    assert scale[1] == 0


def test_equal_boxes_have_equal_words_in_any_order() -> None:
    first = annotation_words(table((0, "cat", SQUARE), (0, "dog", NEARLY)))
    assert first == annotation_words(table((7, "dog", NEARLY), (7, "cat", SQUARE)))
    assert first != annotation_words(table((0, "dog", SQUARE), (0, "cat", NEARLY)))
    assert first.startswith("2 boxes, #")
    assert annotation_words(table()) == "no boxes"
