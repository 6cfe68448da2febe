import xml.etree.ElementTree as ElementTree

import pytest

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.forest_chart import Line, forest

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("width", [380, 900])
@pytest.mark.parametrize(
    "lines",
    [
        [Line("small-int8", Interval(-0.004, -0.009, 0.001), "chosen"), Line("other", Interval(0.01, 0.0, 0.02))],
        [Line("none <b>&c", Interval(0.0, 0.0, 0.0))],
        [Line("a name far longer than any chart of this width has room for, and longer", Interval(-1, -1, -0.5))],
        [Line("residual-16-pruned-int8 minus champion", Interval(-0.1, -0.2, 0.0), "chosen")],
    ],
)
def test_every_line_lies_inside_the_chart_in_its_order(lines, width):
    root = ElementTree.fromstring(forest(lines, width, "Differences", "points", -0.01))
    points = [element for element in root.iter() if element.tag.removeprefix(SVG) == "circle"]
    assert len(points) == len(lines)
    assert all(0 < float(point.get("cx")) < width for point in points)
    heights = [float(point.get("cy")) for point in points]
    assert heights == sorted(heights)
    texts = [element for element in root.iter() if element.tag.removeprefix(SVG) == "text"]
    names = [element for element in texts if "label" in element.get("class")]
    for element, line in zip(names, lines, strict=True):
        assert line.name.startswith(element.text.rstrip("…"))
        bold = 1.16 if line.kind == "chosen" else 1
        assert float(element.get("x")) - len(element.text) * 6.9 * bold > -1
    assert any(element.text == "0" for element in texts)


def test_points_are_right_of_the_limit_where_the_difference_is_above_it():
    drawn = forest([Line("a", Interval(-0.004, -0.009, 0.001))], 900, "t", "a", -0.01)
    root = ElementTree.fromstring(drawn)
    limit = next(float(item.get("x1")) for item in root.iter() if item.get("class") == "limit")
    zero = next(float(item.get("x1")) for item in root.iter() if item.get("class") == "axis")
    point = next(float(item.get("cx")) for item in root.iter() if item.get("cx"))
    assert limit < point < zero
    assert (zero - point) / (zero - limit) == pytest.approx(0.4, abs=0.01)
