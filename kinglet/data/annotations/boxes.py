"""Images with boxes, as every format of annotations is read, and which boxes cannot be used.

Coordinates are continuous pixels of the image as it is shown (turned as its EXIF orientation says), origin at the
upper left corner of the upper left pixel: a box that covers the whole image is (0, 0, width, height).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

# A box may reach over the edge by rounding; what does so further is cut and told.
ROUNDING_PIXELS = 1.0
# An object no larger than this in both directions is a slip of the mouse.
SMALLEST_SIDE = 1.0
NO_IDENTITY = -1


@dataclass(frozen=True)
class Box:
    """One object.

    xyxy: left, top, right, bottom in pixels, inside the image, with an area above 0. identity: the same in every frame
    of a sequence that shows the object, NO_IDENTITY where images are no frames.
    """

    label: str
    xyxy: tuple[float, float, float, float]
    identity: int = NO_IDENTITY


@dataclass(frozen=True)
class AnnotatedImage:
    """One image and what is on it; without boxes it shows none of the classes.

    path: relative to the data set's folder, with forward slashes. width, height: in pixels, as shown.
    split: train, validation or test where the set says so, else "". group: of images that belong together, such as the
    frames of a sequence; "" for one that stands for itself.
    """

    path: str
    width: int
    height: int
    boxes: tuple[Box, ...]
    split: str = ""
    group: str = ""


@dataclass(frozen=True)
class Finding:
    """Something in the annotations that could not be used, or not as it stands. place: file and line, index or id."""

    place: str
    reason: str


@dataclass(frozen=True)
class Annotations:
    """A data set for detection.

    images: sorted by path. classes: sorted by name. dropped: boxes, files and images that are no part of it.
    changed: boxes that were cut at the edge of their image. notes: what was assumed of the whole set.
    """

    format: str
    images: tuple[AnnotatedImage, ...]
    classes: tuple[str, ...]
    dropped: tuple[Finding, ...] = ()
    changed: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Findings:
    """What a reader collects on its way."""

    dropped: list[Finding] = field(default_factory=list)
    changed: list[Finding] = field(default_factory=list)

    def drop(self, place: str, reason: str) -> None:
        """Note that something was left out."""
        self.dropped.append(Finding(place, reason))


def usable_box(
    values: Sequence[object], label: str, size: tuple[int, int], place: str, findings: Findings
) -> Box | None:
    """Return a box cut at the edge of its image; None, with the reason in `findings`, for one that is none.

    values: left, top, right, bottom in pixels, as read: numbers, or texts that are numbers. size: the image's width
    and height in pixels.
    """
    try:
        numbers = [float(value) for value in values]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        findings.drop(place, f"its box is not four numbers: {', '.join(map(str, values))[:60]}")
        return None
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        findings.drop(place, f"its box is not four finite numbers: {', '.join(map(str, values))[:60]}")
        return None
    left, top, right, bottom = numbers
    if right <= left or bottom <= top:
        findings.drop(place, f"its box has no area: {in_words(numbers)}")
        return None
    inside = (max(left, 0.0), max(top, 0.0), min(right, float(size[0])), min(bottom, float(size[1])))
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        findings.drop(place, f"its box {in_words(numbers)} lies outside of the image of {size[0]} x {size[1]} pixels")
        return None
    if max(inside[2] - inside[0], inside[3] - inside[1]) <= SMALLEST_SIDE:
        findings.drop(place, f"its box is no larger than a pixel: {in_words(numbers)}")
        return None
    if max(abs(cut - given) for cut, given in zip(inside, numbers, strict=True)) > ROUNDING_PIXELS:
        reason = f"box {in_words(numbers)} cut at the edge of the image of {size[0]} x {size[1]} pixels"
        findings.changed.append(Finding(place, reason))
    return Box(label, inside)


def in_words(numbers: Sequence[float]) -> str:
    """Return coordinates as short text."""
    return f"({', '.join(f'{number:g}' for number in numbers)})"


def without_repetitions(boxes: list[tuple[str, Box]], findings: Findings) -> tuple[Box, ...]:
    """Return the boxes of one image, of those that are equal in label and place the first only.

    boxes: (place, box) in the order of the file.
    """
    first: dict[Box, str] = {}
    for place, box in boxes:
        if box in first:
            findings.drop(place, f"repeats the {box.label!r} of {first[box]}")
        else:
            first[box] = place
    return tuple(first)


def turned(
    xyxy: tuple[float, float, float, float], stored: tuple[int, int], orientation: int
) -> tuple[float, float, float, float]:
    """Return a box of an image as stored as it lies in the image as shown.

    xyxy: pixels in the stored image. stored: its width and height. orientation: the EXIF tag, 1 to 8.
    Source: CIPA DC-008 (Exif 3.0), tag Orientation.
    """
    width, height = stored
    left, top, right, bottom = xyxy
    corners = [_turned_point(point, width, height, orientation) for point in ((left, top), (right, bottom))]
    (x0, y0), (x1, y1) = corners
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _turned_point(point: tuple[float, float], width: int, height: int, orientation: int) -> tuple[float, float]:
    x, y = point
    return {
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }.get(orientation, (x, y))
