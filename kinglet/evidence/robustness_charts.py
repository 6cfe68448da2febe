"""Accuracy and confidence as images grow worse, as inline SVG; colours come from the page's style sheet."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from kinglet.evidence.charts import LINE_HEIGHT, nice_step, text

LEFT, RIGHT, TOP, BOTTOM = 52, 92, 16, 46


@dataclass(frozen=True)
class Decline:
    """A model's accuracy and mean confidence on clean images and at every severity, in [0, 1]; equally many of both.

    kind: its CSS class ("chosen", "teacher").
    """

    name: str
    accuracy: list[float]
    confidence: list[float]
    kind: str


def accuracy_and_confidence(declines: list[Decline], *, width: int, height: int) -> str:
    """Return a line chart: accuracy solid, confidence dashed, the space between them shaded; both in percent."""
    values = [100 * value for item in declines for value in (*item.accuracy, *item.confidence)]
    step = nice_step((max(values) - min(values)) / 4 or 1)
    lowest, highest = step * (min(values) // step), step * -(-max(values) // step)
    if lowest == highest:
        lowest -= step
    n_places = len(declines[0].accuracy)
    bottom, right = height - BOTTOM, width - RIGHT

    def x_of(place: int) -> float:
        return LEFT + 14 + place * (right - LEFT - 28) / max(1, n_places - 1)

    def y_of(share: float) -> float:
        return bottom - (100 * share - lowest) / (highest - lowest) * (bottom - TOP)

    parts = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        'aria-label="Accuracy and mean confidence by severity of the corruption">'
    ]
    for number in range(round((highest - lowest) / step) + 1):
        tick = lowest + number * step
        y = y_of(tick / 100)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(LEFT - 8, y + 4, f"{tick:g}", "tick end"))
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    for place in range(n_places):
        parts.append(text(x_of(place), bottom + 19, f"{place}" if place else "clean", "tick middle"))
    parts.append(text((LEFT + right) / 2, height - 8, "severity, all kinds together", "title middle"))
    parts.append(
        f'<text class="title middle" transform="translate(13 {(TOP + bottom) / 2:.0f}) rotate(-90)">percent</text>'
    )
    for item in declines:
        solid = [f"{x_of(place):.1f},{y_of(value):.1f}" for place, value in enumerate(item.accuracy)]
        dashed = [f"{x_of(place):.1f},{y_of(value):.1f}" for place, value in enumerate(item.confidence)]
        parts.append(f'<polygon class="gap {item.kind}" points="{" ".join(solid + dashed[::-1])}"/>')
        parts.append(f'<polyline class="decline {item.kind}" points="{" ".join(solid)}"/>')
        parts.append(f'<polyline class="decline sure {item.kind}" points="{" ".join(dashed)}"/>')
    ends = [
        (y_of(line[-1]), word, item.kind)
        for item in declines
        for line, word in ((item.accuracy, "accuracy"), (item.confidence, "confidence"))
    ]
    for y, (_, word, kind) in zip(apart([y for y, _, _ in ends]), ends, strict=True):
        parts.append(text(right + 2, y + 4, word, f"label {kind}"))
    return "".join([*parts, "</svg>"])


def apart(heights: list[float]) -> list[float]:
    """Return heights moved down where two lines of text would overlap, in the given order."""
    moved = list(heights)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    for above, below in itertools.pairwise(order):
        moved[below] = max(moved[below], moved[above] + LINE_HEIGHT)
    return moved
