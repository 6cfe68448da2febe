"""Boxes that are worth a second look: very small ones, nearly the whole image, one object drawn twice."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kinglet.runtime.boxes import box_iou

SIDES = ["x1", "y1", "x2", "y2"]


def input_scales(
    widths: NDArray[np.int64], heights: NDArray[np.int64], input_size: int, fit: str
) -> NDArray[np.float64]:
    """Return by how much an object's size, the square root of its area, changes on the way into a network.

    widths, heights: of the images in pixels, shape (n,); 0 (not decoded) gives 0. input_size: edge of the network's
    input in pixels. fit: pad or stretch, as `kinglet.runtime.preprocessing.resize` knows them.
    """
    width, height = widths.astype(np.float64), heights.astype(np.float64)
    edge = np.sqrt(width * height) if fit == "stretch" else np.maximum(width, height)
    return np.divide(float(input_size), edge, out=np.zeros_like(edge), where=edge > 0)


def judge_boxes(boxes: pd.DataFrame, *, tiny_pixels: float, huge_share: float, same_object_iou: float) -> pd.DataFrame:
    """Return the boxes with a column for each judgement that the checks are made on, and `name` and `remark`.

    boxes: a row each, ascending by image: index, path, label, x1, y1, x2, y2, width and height of the image, side (the
    square root of the area) and input_side (at the network's input), in pixels.
    tiny: bool, input_side below `tiny_pixels`. huge: bool, at least `huge_share` of the image's area. drawn_twice,
    other_class: bool, an earlier box of the image, of the same or another class, has an intersection over union of at
    least `same_object_iou`. name: path, class and place, as text. remark: what is odd, in words, "" if nothing is.
    """
    judged = boxes.copy()
    judged["name"] = [box_name(*row) for row in boxes[["path", "label", *SIDES]].itertuples(index=False)]
    image_area = (boxes["width"] * boxes["height"]).to_numpy(np.float64)
    judged["tiny"] = (boxes["input_side"] < tiny_pixels).to_numpy()
    judged["huge"] = boxes["side"].to_numpy() ** 2 >= huge_share * np.maximum(image_area, 1)
    twin = earlier_twins(boxes, same_object_iou)
    labels, has_twin = boxes["label"].to_numpy(object), twin >= 0
    same_class = labels == labels[np.maximum(twin, 0)] if len(boxes) else has_twin
    judged["drawn_twice"] = has_twin & same_class
    judged["other_class"] = has_twin & ~same_class
    remarks = np.full(len(judged), "", object)
    odd = (judged["tiny"] | judged["huge"]).to_numpy() | has_twin
    for row in np.flatnonzero(odd).tolist():
        said = []
        if judged["tiny"].iat[row]:
            said.append(f"tiny: {boxes['input_side'].iat[row]:.1f} pixels at the network's input")
        if judged["huge"].iat[row]:
            said.append("covers nearly the whole image")
        if has_twin[row]:
            said.append(f"covers the same as {judged['name'].iat[twin[row]]}")
        remarks[row] = "; ".join(said)
    judged["remark"] = remarks
    return judged


def box_name(path: str, label: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """Return how a box is called in lists: its image, its class, its place in pixels."""
    return f"{path}: {label} ({', '.join(f'{side:.6g}' for side in (x1, y1, x2, y2))})"


def earlier_twins(boxes: pd.DataFrame, min_iou: float) -> NDArray[np.int64]:
    """Return for each box the row of the first box before it in its image that covers the same, -1 if none does.

    Among several, one of the same class is preferred. min_iou: from which intersection over union on.
    """
    twin = np.full(len(boxes), -1, np.int64)
    xyxy, labels = boxes[SIDES].to_numpy(np.float64), boxes["label"].to_numpy(object)
    rows = np.arange(len(boxes))
    for _, place in pd.Series(rows).groupby(boxes["index"].to_numpy()):
        of_image = place.to_numpy()
        covers = np.tril(box_iou(xyxy[of_image], xyxy[of_image]) >= min_iou, k=-1)
        for later in np.flatnonzero(covers.any(axis=1)):
            earlier = of_image[np.flatnonzero(covers[later])]
            of_class = earlier[labels[earlier] == labels[of_image[later]]]
            twin[of_image[later]] = (of_class if len(of_class) else earlier)[0]
    return twin


def annotation_words(boxes: pd.DataFrame) -> str:
    """Return the annotation of one image in words that are equal for equal boxes, whatever their order."""
    if boxes.empty:
        return "no boxes"
    rows = sorted(boxes[["label", *SIDES]].itertuples(index=False, name=None))
    digest = hashlib.sha256(repr(rows).encode()).hexdigest()[:8]
    return f"{len(rows)} boxes, #{digest}"
