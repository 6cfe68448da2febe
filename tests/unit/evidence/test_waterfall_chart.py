"""The waterfall: every model in every panel, and bars that reach from one value to the next."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.waterfall_chart import Panel, Step, waterfall

NAMES = [("teacher", "teacher"), ("a<b&c", "other"), ("small", "chosen")]


def steps(*values: float, spread: float = 0.01) -> list[Step]:
    return [
        Step(
            Interval(value, value * (1 - spread), value * (1 + spread)),
            f"{value:g}",
            "" if position == 0 else f"x{value / values[position - 1]:.2f}",
            "up",
        )
        for position, value in enumerate(values)
    ]


def drawn(panels: list[Panel], narrow: bool, names: list[tuple[str, str]] = NAMES) -> ElementTree.Element:
    chart = waterfall(names, panels, width=380 if narrow else 1000, narrow=narrow)
    assert chart == waterfall(names, panels, width=380 if narrow else 1000, narrow=narrow)
    return ElementTree.fromstring(chart)


@pytest.mark.parametrize("narrow", [False, True])
def test_every_model_is_in_every_panel_and_all_lies_inside(narrow: bool) -> None:
    panels = [Panel("accuracy, %", steps(93, 92.5, 93.1)), Panel("latency, ms", steps(0.8, 0.11, 0.066), True)]
    root = drawn(panels, narrow)
    words = ["".join(element.itertext()) for element in root.iter("text")]
    assert words.count("small") == (2 if narrow else 1)
    assert "a<b&c" in words
    assert all(panel.title in words for panel in panels)
    circles, bars = list(root.iter("circle")), list(root.iter("rect"))
    assert (len(circles), len(bars)) == (6, 4)
    width, height = (float(root.get(side, "")) for side in ("width", "height"))
    assert all(0 <= float(circle.get("cx", "")) <= width for circle in circles)
    assert all(0 <= float(circle.get("cy", "")) <= height for circle in circles)


def test_a_bar_reaches_from_the_model_before_to_this_one() -> None:
    root = drawn([Panel("size, MB", steps(8, 4, 1), True)], narrow=False)
    x = [float(circle.get("cx", "")) for circle in root.iter("circle")]
    for bar, start, end in zip(root.iter("rect"), x, x[1:], strict=False):
        assert float(bar.get("x", "")) == pytest.approx(end, abs=0.1)
        assert float(bar.get("width", "")) == pytest.approx(start - end, abs=0.1)
    # Equal ratios are equally long: 8 to 4 is half of 4 to 1.
    assert 2 * (x[0] - x[1]) == pytest.approx(x[1] - x[2], abs=0.3)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_one_model_and_models_that_do_not_differ_are_drawn(logarithmic: bool) -> None:
    for values in ((5.0,), (5.0, 5.0)):
        root = drawn([Panel("size", steps(*values, spread=0), logarithmic)], True, NAMES[: len(values)])
        assert len(list(root.iter("circle"))) == len(values)
