"""Charts as inline SVG text: colours come from the page's style sheet, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import numpy as np

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.pareto import pareto_front

LEFT, RIGHT, TOP, BOTTOM = 52, 18, 16, 46
CHARACTER_WIDTH, LINE_HEIGHT = 6.9, 15
POINT_RADIUS = 5

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Point:
    """A model in the chart. kind: its CSS class ("chosen", "teacher", "front" or "other")."""

    name: str
    latency_ms: Interval
    accuracy: Interval
    kind: str


def accuracy_against_latency(
    points: list[Point],
    *,
    width: int,
    height: int,
    lowest_accuracy: float | None = None,
    highest_latency_ms: float | None = None,
    score: str = "accuracy",
) -> str:
    """Return a scatter chart: latency in ms on a logarithmic axis, accuracy in percent, both with intervals.

    A line connects the models that none is both faster and more accurate than.
    lowest_accuracy, highest_latency_ms: limits of the budget, dashed where they fall into the chart. score: what the
    accuracy is called.
    """
    x_low, x_high = log_range(points)
    y_low, y_high, y_ticks = accuracy_axis(points, lowest_accuracy)

    def x_of(latency: float) -> float:
        return LEFT + (math.log(latency) - x_low) / (x_high - x_low) * (width - LEFT - RIGHT)

    def y_of(accuracy: float) -> float:
        return height - BOTTOM - (100 * accuracy - y_low) / (y_high - y_low) * (height - TOP - BOTTOM)

    bottom, right = height - BOTTOM, width - RIGHT
    parts = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="Validation {score} against latency of every model">'
    ]
    for tick in y_ticks:
        y = y_of(tick / 100)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(LEFT - 8, y + 4, f"{tick:g}", "tick end"))
    for latency in log_ticks(math.exp(x_low), math.exp(x_high), narrow=width < 500):
        x = x_of(latency)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(text(x, bottom + 19, f"{latency:g}", "tick middle"))
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(text((LEFT + right) / 2, height - 8, "latency at batch 1, ms (logarithmic)", "title middle"))
    parts.append(
        f'<text class="title middle" transform="translate(13 {(TOP + bottom) / 2:.0f}) rotate(-90)">{score}, %</text>'
    )
    parts += limits(x_of, y_of, lowest_accuracy, highest_latency_ms, (x_low, x_high), width, height)

    on_front = pareto_front(np.array([(item.latency_ms.value, -item.accuracy.value) for item in points]))
    pairs = [(item.latency_ms.value, item.accuracy.value) for item in points]
    connected = sorted(pair for pair, on in zip(pairs, on_front, strict=True) if on)
    if len(connected) > 1:
        corners = " ".join(f"{x_of(latency):.1f},{y_of(accuracy):.1f}" for latency, accuracy in connected)
        parts.append(f'<polyline class="front-line" points="{corners}"/>')
    for item in points:
        parts.append(whiskers(item, x_of, y_of))
    # The chosen one lies on top.
    for item in sorted(points, key=lambda item: item.kind == "chosen"):
        x, y = x_of(item.latency_ms.value), y_of(item.accuracy.value)
        radius = POINT_RADIUS + 2 * (item.kind == "chosen")
        parts.append(f'<circle class="point {item.kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>')
    parts += labels(points, x_of, y_of, width, height)
    return "".join([*parts, "</svg>"])


def log_range(points: list[Point]) -> tuple[float, float]:
    """Return the natural logarithms of the ends of the latency axis, with some air around the points."""
    low = math.log(min(item.latency_ms.low for item in points))
    high = math.log(max(item.latency_ms.high for item in points))
    air = max(0.15, 0.1 * (high - low))
    return low - air, high + air


def accuracy_axis(points: list[Point], lowest_accuracy: float | None) -> tuple[float, float, list[float]]:
    """Return lower end, upper end and ticks of the accuracy axis, in percent."""
    limit = [] if lowest_accuracy is None else [100 * lowest_accuracy]
    low = min([100 * item.accuracy.low for item in points] + limit)
    high = max([100 * item.accuracy.high for item in points] + limit)
    step = nice_step((high - low) / 5 or 0.1)
    air = 0.06 * (high - low) or step
    low, high = low - air, high + air
    ticks = range(math.ceil(low / step), math.floor(high / step) + 1)
    return low, high, [round(number * step, 6) for number in ticks]


def nice_step(rough: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is at least `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def log_ticks(low: float, high: float, narrow: bool = False) -> list[float]:
    """Return tick values between low and high: 1, 2, 5 times powers of ten, fewer on a narrow chart."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    wide_span = high / low > (30 if narrow else 300)
    ticks = [
        round(factor * 10.0**power, 12)
        for power in powers
        for factor in ((1,) if wide_span and high / low > 100 else (1, 2, 5))
        if low <= factor * 10.0**power <= high
    ]
    if len(ticks) >= 2:
        return ticks
    step = nice_step((high - low) / 4)
    return [round(number * step, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def limits(
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
    lowest_accuracy: float | None,
    highest_latency_ms: float | None,
    x_range: tuple[float, float],
    width: int,
    height: int,
) -> list[str]:
    """Return the budget's limits as dashed lines with a word."""
    parts = []
    if lowest_accuracy is not None:
        y = y_of(lowest_accuracy)
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(width - RIGHT, y + 14, "largest drop allowed", "tick end halo"))
    if highest_latency_ms is not None and x_range[0] < math.log(highest_latency_ms) < x_range[1]:
        x = x_of(highest_latency_ms)
        parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>')
        parts.append(text(x - 5, TOP + 10, "slowest allowed", "tick end halo"))
    return parts


def whiskers(item: Point, x_of: Callable[[float], float], y_of: Callable[[float], float]) -> str:
    """Return the two intervals of a point as thin lines."""
    x, y = x_of(item.latency_ms.value), y_of(item.accuracy.value)
    left, right = x_of(item.latency_ms.low), x_of(item.latency_ms.high)
    top, bottom = y_of(item.accuracy.high), y_of(item.accuracy.low)
    return (
        f'<path class="whisker {item.kind}" d="M{x:.1f} {top:.1f}V{bottom:.1f}M{left:.1f} {y:.1f}H{right:.1f}'
        f'M{x - 3:.1f} {top:.1f}h6M{x - 3:.1f} {bottom:.1f}h6"/>'
    )


def labels(
    points: list[Point], x_of: Callable[[float], float], y_of: Callable[[float], float], width: int, height: int
) -> list[str]:
    """Return the names beside their points, each where it covers least of what is there already."""
    taken: list[Box] = []
    for item in points:
        x, y = x_of(item.latency_ms.value), y_of(item.accuracy.value)
        taken.append((x - 7, y - 7, x + 7, y + 7))
        taken.append((x - 3, y_of(item.accuracy.high), x + 3, y_of(item.accuracy.low)))
    parts = []
    for item in sorted(points, key=lambda item: (item.kind != "chosen", item.name)):
        x, y = x_of(item.latency_ms.value), y_of(item.accuracy.value)
        length = len(item.name) * CHARACTER_WIDTH
        places = [
            (x + dx if side == "start" else x - dx if side == "end" else x, y + dy, side)
            for dy in (4, -9, 18, -24, 33, -39, 48)
            for dx, side in ((11, "start"), (11, "end"), (0, "middle"))
            if side != "middle" or abs(dy - 4) > 8
        ]
        boxes = [label_box(px, py, length, side) for px, py, side in places]
        costs = [cost_of(box, taken, width, height) + 2.0 * rank for rank, box in enumerate(boxes)]
        best = min(range(len(places)), key=costs.__getitem__)
        taken.append(boxes[best])
        px, py, side = places[best]
        parts.append(text(px, py, item.name, f"label {side} {item.kind}"))
    return parts


def label_box(x: float, y: float, length: float, side: str) -> Box:
    """Return left, top, right, bottom of a text of this length anchored at x, y."""
    left = x if side == "start" else x - length if side == "end" else x - length / 2
    return left, y - LINE_HEIGHT + 4, left + length, y + 4


def cost_of(box: Box, taken: list[Box], width: int, height: int) -> float:
    """Return the area that a box shares with others, and a high price for leaving the chart."""
    shared = sum(
        max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
        * max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
        for other in taken
    )
    outside = max(0, LEFT - box[0]) + max(0, box[2] - width) + max(0, TOP - box[1]) + max(0, box[3] - height + BOTTOM)
    return shared + 50 * outside


def text(x: float, y: float, content: str, style: str) -> str:
    """Return an SVG text element."""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(content)}</text>'
