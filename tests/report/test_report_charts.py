import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from stilts_jax.report import charts
from stilts_jax.report.charts import Curve, Point, Series, dot_chart, line_chart, nice_ticks, scatter_chart


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (43.2, 88.9), (-3.0, 21.0), (5.0, 5.0), (0.0, 12000.0), (-1e-4, 2e-4)]
)
def test_ticks_cover_the_data_in_equal_steps(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert np.diff(ticks) == pytest.approx(np.diff(ticks)[0])
    assert 2 <= len(ticks) <= 9


@pytest.mark.parametrize("seed", range(5))
def test_labels_overlap_nothing(seed):
    generator = np.random.default_rng(seed)
    cloud = [(float(x), float(y)) for x, y in generator.normal(0, 1, (40, 2))]
    points = [Point(x, y, f"{index:02d}") for index, (x, y) in enumerate(cloud)]
    frame = charts._Frame(cloud, 14, 300, inset=14)
    places = [frame.place(x, y) for x, y in cloud]
    boxes = [box for box in charts.place_labels(places, points, frame) if box]
    assert len(boxes) >= 36
    for index, box in enumerate(boxes):
        assert frame.left <= box[0] <= box[2] <= frame.right
        assert frame.top <= box[1] <= box[3] <= frame.bottom
        for other in boxes[index + 1 :]:
            apart = box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
            assert apart
        for x, y in places:
            assert not (box[0] < x < box[2] and box[1] < y < box[3])


def _numbers(svg: str) -> list[tuple[float, float]]:
    root = ElementTree.fromstring(svg)
    places = []
    for element in root.iter():
        for x, y in (("x", "y"), ("cx", "cy"), ("x1", "y1"), ("x2", "y2")):
            if x in element.attrib and y in element.attrib:
                places.append((float(element.attrib[x]), float(element.attrib[y])))
        for pair in element.attrib.get("points", "").split():
            places.append(tuple(float(value) for value in pair.split(",")))
    return places


def test_charts_are_well_formed_and_inside_their_frame():
    labels = ["Swahili sw", "a < b & c", "日本語 ja"]
    many = [Series(f"intermediate {index}", [50.0 + index, math.nan, 70.0], index) for index in range(12)]
    drawings = [
        dot_chart("t & u", labels, many, "gain in acc., points", zero=True),
        dot_chart("one", ["x"], [Series("a", [5.0])], "percent"),
        dot_chart("nothing at all", ["x"], [Series("a", [math.nan])], "percent"),
        line_chart(
            "c", [Curve("a", [(0, 2.0), (100, 1.0)], 0), Curve("b", [(0, math.nan), (9, 1)], 1)], "s", "l"
        ),
        scatter_chart("s", [Point(0.1 * n, float(n), str(n)) for n in range(8)], "distance", "gain"),
        scatter_chart("flat", [Point(1.0, 2.0, str(n)) for n in range(5)], "distance", "gain"),
    ]
    for svg in drawings:
        height = float(ElementTree.fromstring(svg).attrib["viewBox"].split()[3])
        for x, y in _numbers(svg):
            assert 0 <= x <= charts.WIDTH
            assert 0 <= y <= height


def test_a_missing_value_is_not_drawn():
    svg = dot_chart("t", ["a", "b"], [Series("s", [1.0, math.nan])], "percent")
    titles = [element.text for element in ElementTree.fromstring(svg).iter("title")]
    assert titles == ["a, s: 1.0"]
