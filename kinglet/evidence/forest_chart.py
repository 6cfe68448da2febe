"""A chart of differences with their intervals, one line for each, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.charts import CHARACTER_WIDTH, nice_step, text

ROW_HEIGHT, TOP, BOTTOM, RIGHT = 26, 22, 44, 14
# Share of the width that the names may take; longer ones end in dots.
NAMES_SHARE = 0.42
# Names of these kinds are printed bold: that much wider.
BOLD, BOLD_WIDTH = ("chosen", "teacher"), 1.16


@dataclass(frozen=True)
class Line:
    """One difference. name: what it is of. difference: in shares, [-1, 1]. kind: chosen, teacher, front or other."""

    name: str
    difference: Interval
    kind: str = "other"


def forest(lines: list[Line], width: int, title: str, axis: str, lowest_allowed: float | None = None) -> str:
    """Return an SVG chart of differences in points, one below the other, with a line at zero.

    title: what a reader that cannot see it is told. axis: what stands below it. lowest_allowed: dashed where given.
    """
    height = TOP + ROW_HEIGHT * len(lines) + BOTTOM
    longest = max((len(item.name) * character_width(item) for item in lines), default=0)
    left = round(min(NAMES_SHARE * width, longest + 22))
    low, high, ticks = axis_range(lines, lowest_allowed, narrow=width < 500)
    bottom, right = height - BOTTOM, width - RIGHT

    def x_of(difference: float) -> float:
        return left + (100 * difference - low) / (high - low) * (right - left)

    parts = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{title}">'
    ]
    for tick in ticks:
        x = x_of(tick / 100)
        parts.append(
            f'<line class="{"axis" if tick == 0 else "grid"}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>'
        )
        parts.append(text(x, bottom + 17, f"{tick:+g}".replace("-", "\u2212") if tick else "0", "tick middle"))
    parts.append(text((left + right) / 2, height - 8, axis, "title middle"))
    if lowest_allowed is not None:
        x = x_of(lowest_allowed)
        parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(text(x, TOP - 8, "largest drop allowed", f"tick {side_of(x, left, right)}"))
    for position, item in enumerate(lines):
        parts += line_parts(item, x_of, TOP + ROW_HEIGHT * (position + 0.5), left)
    return "".join([*parts, "</svg>"])


def axis_range(lines: list[Line], lowest_allowed: float | None, narrow: bool) -> tuple[float, float, list[float]]:
    """Return lower end, upper end and ticks of the axis, in points; zero is always on it."""
    ends = [100 * end for item in lines for end in (item.difference.low, item.difference.high)]
    ends += [0.0] if lowest_allowed is None else [0.0, 100 * lowest_allowed]
    low, high = min(ends), max(ends)
    step = nice_step((high - low) / (4 if narrow else 7) or 0.1)
    low, high = low - step / 3, high + step / 3
    return low, high, [round(number * step, 6) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def side_of(x: float, left: float, right: float) -> str:
    """Return how a text at x is anchored so that it stays between left and right."""
    room = 11 * CHARACTER_WIDTH
    return "start" if x - room < left else "end" if x + room > right else "middle"


def character_width(item: Line) -> float:
    """Return how wide a character of a line's name is, in pixels, on average."""
    return CHARACTER_WIDTH * (BOLD_WIDTH if item.kind in BOLD else 1)


def line_parts(item: Line, x_of: Callable[[float], float], y: float, left: float) -> list[str]:
    """Return the name, the interval and the point of one line."""
    fitting = int((left - 10) / character_width(item))
    name = item.name if len(item.name) <= fitting else f"{item.name[: fitting - 1]}…"
    low, value, high = (x_of(end) for end in (item.difference.low, item.difference.value, item.difference.high))
    return [
        text(left - 10, y + 4, name, f"label end {item.kind}"),
        f'<path class="whisker {item.kind}" d="M{low:.1f} {y:.1f}H{high:.1f}'
        f'M{low:.1f} {y - 4:.1f}v8M{high:.1f} {y - 4:.1f}v8"/>',
        f'<circle class="point {item.kind}" cx="{value:.1f}" cy="{y:.1f}" r="5"/>',
    ]
