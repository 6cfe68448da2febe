"""The scores of all folds as dots on one line, with their mean and its interval, as inline SVG."""

from __future__ import annotations

from kinglet.evidence.charts import nice_step, text

LEFT, RIGHT, HEIGHT, LINE, AXIS = 18, 18, 118, 46, 78
RADIUS = 5


def score_of_folds(
    scores: list[float], mean: dict[str, float], teacher: float, *, width: int, word: str = "accuracy"
) -> str:
    """Return a strip chart of a score in percent.

    scores: of the runs, in [0, 1]. mean: value, low and high of their interval. teacher: the score of the model that
    was trained in full, a dashed line. word: for the score.
    """
    ends = [*scores, mean["low"], mean["high"], teacher]
    low, high = 100 * min(ends), 100 * max(ends)
    air = 0.06 * (high - low) or 1.0
    low, high = low - air, high + air

    def x_of(score: float) -> float:
        return LEFT + (100 * score - low) / (high - low) * (width - LEFT - RIGHT)

    parts = [
        f'<svg class="chart" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" role="img" '
        f'aria-label="{word[0].upper() + word[1:]} of every fold, their mean and its interval">',
        f'<line class="axis" x1="{LEFT}" x2="{width - RIGHT}" y1="{AXIS}" y2="{AXIS}"/>',
    ]
    step = nice_step((high - low) / (8 if width > 500 else 4))
    first = int(low // step) + 1
    for number in range(first, int(high // step) + 1):
        x = x_of(number * step / 100)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{AXIS}" y2="{AXIS + 5}"/>')
        parts.append(text(x, AXIS + 19, f"{round(number * step, 6):g}", "tick middle"))
    parts.append(text(width / 2, HEIGHT - 4, f"{word} on the images of a fold, %", "title middle"))
    x = x_of(teacher)
    anchor = "end" if x > width / 2 else "start"
    parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="{AXIS}"/>')
    parts.append(text(x + (-5 if anchor == "end" else 5), 22, "teacher, on test images", f"tick {anchor} halo"))
    left, middle, right = (x_of(mean[end]) for end in ("low", "value", "high"))
    parts.append(
        f'<path class="whisker chosen" d="M{left:.1f} {LINE}H{right:.1f}M{left:.1f} {LINE - 6}v12'
        f'M{right:.1f} {LINE - 6}v12M{middle:.1f} {LINE - 11}v22"/>'
    )
    for score in scores:
        parts.append(f'<circle class="point front" cx="{x_of(score):.1f}" cy="{LINE}" r="{RADIUS}"/>')
    return "".join([*parts, "</svg>"])
