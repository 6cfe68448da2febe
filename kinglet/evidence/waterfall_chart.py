"""The waterfall as inline SVG: what every step from one model to the next did to each quantity, row by row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.charts import log_ticks, nice_step, text

NAME_WIDTH, GAP = 172, 26
ROW_HEIGHT, BAR_HEIGHT = 46, 9
TITLE_HEIGHT, AXIS_HEIGHT = 26, 30
NAME_HEIGHT = 17  # of a name that stands above its row, on a narrow page


@dataclass(frozen=True)
class Step:
    """One model in one panel.

    value: with its interval. said: the value in words; change: the difference to the model before in words, "" for
    the first. tone: the change's CSS class ("up" for better, "down" for worse, "mute" for not established).
    """

    value: Interval
    said: str
    change: str = ""
    tone: str = "mute"


@dataclass(frozen=True)
class Panel:
    """One quantity over all models. title: with its unit. logarithmic: whether equal ratios are equally long."""

    title: str
    steps: list[Step]
    logarithmic: bool = False


@dataclass(frozen=True)
class Scale:
    """The axis of a panel: where a value lies, in pixels, and the values at which it is marked."""

    x_of: Callable[[float], float]
    ticks: list[float]


def waterfall(names: list[tuple[str, str]], panels: list[Panel], *, width: int, narrow: bool) -> str:
    """Return the chart: one row per model, one panel per quantity; side by side, or below each other if narrow.

    names: (name, CSS class) of every model, in the order in which each was made from the one before.
    A bar reaches from the model before to this one; the thin line is the interval of this model's value.
    """
    parts, top = [], 0.0
    if narrow:
        for panel in panels:
            drawn, top = panel_of(panel, names, 4, width - 8, top, names_above=True)
            parts += drawn
    else:
        panel_width = (width - NAME_WIDTH - GAP * (len(panels) - 1)) / len(panels)
        for row, (name, kind) in enumerate(names):
            parts.append(text(0, TITLE_HEIGHT + row * ROW_HEIGHT + 25, name, f"label {kind}"))
        for place, panel in enumerate(panels):
            left = NAME_WIDTH + place * (panel_width + GAP)
            drawn, top = panel_of(panel, names, left, panel_width, 0, names_above=False)
            parts += drawn
    opening = (
        f'<svg class="chart waterfall" viewBox="0 0 {width} {top:.0f}" width="{width}" height="{top:.0f}" role="img" '
        'aria-label="What every step changed, from the first model to the last">'
    )
    return "".join([opening, *parts, "</svg>"])


def panel_of(
    panel: Panel, names: list[tuple[str, str]], left: float, width: float, top: float, *, names_above: bool
) -> tuple[list[str], float]:
    """Return the elements of one panel, and where it ends at the bottom."""
    scale = scale_of(panel, left, width)
    row_height = ROW_HEIGHT + NAME_HEIGHT * names_above
    first, last = top + TITLE_HEIGHT, top + TITLE_HEIGHT + row_height * len(panel.steps)
    parts = [text(left, top + 15, panel.title, "title")]
    for tick in scale.ticks:
        x = scale.x_of(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{first:.1f}" y2="{last:.1f}"/>')
        parts.append(text(x, last + 15, f"{tick:g}", "tick middle"))
    before: Step | None = None
    for row, step in enumerate(panel.steps):
        row_top = first + row * row_height
        if names_above:
            parts.append(text(left, row_top + NAME_HEIGHT, names[row][0], f"label {names[row][1]}"))
            row_top += NAME_HEIGHT
        parts += row_of(step, before, names[row][1], scale, left, row_top)
        before = step
    return parts, last + AXIS_HEIGHT


def row_of(step: Step, before: Step | None, kind: str, scale: Scale, left: float, top: float) -> list[str]:
    """Return the elements of one model: words, the bar from the model before, the interval and the value."""
    y, x = top + 31, scale.x_of(step.value.value)
    words = f'<tspan class="value">{step.said}</tspan>'
    if step.change:
        words += f'<tspan class="{step.tone}" dx="7">{step.change}</tspan>'
    parts = []
    if before is not None:
        start = scale.x_of(before.value.value)
        low, high = min(start, x), max(start, x)
        parts.append(f'<line class="step" x1="{start:.1f}" x2="{start:.1f}" y1="{top - 9:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<rect class="change {step.tone}" x="{low:.1f}" y="{y - BAR_HEIGHT / 2:.1f}" '
            f'width="{max(1.0, high - low):.1f}" height="{BAR_HEIGHT}" rx="1.5"/>'
        )
    ends = scale.x_of(step.value.low), scale.x_of(step.value.high)
    parts.append(f'<path class="whisker {kind}" d="M{ends[0]:.1f} {y:.1f}H{ends[1]:.1f}"/>')
    parts.append(f'<circle class="point {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')
    # Last, so that no line crosses the words.
    parts.append(f'<text class="halo" x="{left:.1f}" y="{top + 18:.1f}">{words}</text>')
    return parts


def scale_of(panel: Panel, left: float, width: float) -> Scale:
    """Return the axis that holds all values and intervals of a panel, with some air."""
    values = [end for step in panel.steps for end in (step.value.low, step.value.value, step.value.high)]
    low, high = min(values), max(values)
    if panel.logarithmic:
        air = max(0.1, 0.06 * math.log(high / low))
        low, high = math.log(low) - air, math.log(high) + air
        ticks = log_ticks(math.exp(low), math.exp(high), narrow=True)
    else:
        air = 0.08 * (high - low) or 0.5
        low, high = low - air, high + air
        step = nice_step((high - low) / 3)
        ticks = [round(n * step, 6) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]

    def x_of(value: float) -> float:
        place = math.log(value) if panel.logarithmic else value
        return left + (place - low) / (high - low) * width

    return Scale(x_of, ticks[:: -(-len(ticks) // 4)])
