import xml.etree.ElementTree as ElementTree

import pytest

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.charts import Point, accuracy_against_latency, log_ticks, nice_step


def point(name, latency, accuracy, kind="front"):
    return Point(
        name,
        Interval(latency, latency * 0.98, latency * 1.02),
        Interval(accuracy, accuracy - 0.01, accuracy + 0.01),
        kind,
    )


@pytest.mark.parametrize(
    "points",
    [
        [point("teacher", 1.6, 0.94, "teacher"), point("student", 0.09, 0.93, "chosen")],
        [point("alone", 0.5, 0.9, "chosen")],
        [Point("perfect", Interval(1, 1, 1), Interval(1, 1, 1), "chosen")],
        [point("a<b&c", 0.001, 0.1), point("slow", 5000, 0.99)],
    ],
)
@pytest.mark.parametrize("width", [380, 900])
def test_chart_is_well_formed_and_holds_every_model(points, width):
    drawn = accuracy_against_latency(points, width=width, height=400, lowest_accuracy=0.9, highest_latency_ms=1)
    root = ElementTree.fromstring(drawn)
    names = [element.text for element in root.iter("text")]
    assert all(item.name in names for item in points)
    circles = list(root.iter("circle"))
    assert len(circles) == len(points)
    assert all(0 <= float(circle.get("cx")) <= width and 0 <= float(circle.get("cy")) <= 400 for circle in circles)
    assert drawn == accuracy_against_latency(points, width=width, height=400, lowest_accuracy=0.9, highest_latency_ms=1)


@pytest.mark.parametrize(("low", "high"), [(0.05, 2), (0.09, 0.11), (0.001, 900), (1, 1.2)])
def test_log_axis_has_at_least_two_ticks_inside(low, high):
    ticks = log_ticks(low, high)
    assert len(ticks) >= 2
    assert all(low <= tick <= high for tick in ticks)


@pytest.mark.parametrize(("rough", "expected"), [(0.9, 1), (1.1, 2), (3, 5), (0.07, 0.1), (20, 20)])
def test_nice_step(rough, expected):
    assert nice_step(rough) == pytest.approx(expected)
