from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from markupsafe import Markup

from cinetune.pages.charts import Curve, Interval, Pair, interval_plot, intervals_plot, line_chart, pairs_plot, smooth


def parse(svg: Markup) -> ET.Element:
    return ET.fromstring(str(svg))


def numbers(element: ET.Element, *names: str) -> list[float]:
    return [float(element.attrib[name]) for name in names]


def test_an_interval_lies_where_it_should() -> None:
    svg = parse(interval_plot(Interval("", -2.0, -3.0, -1.0, "good"), better="lower", width=200))
    middle = 100.0
    whisker = next(line for line in svg.iter("line") if line.get("class") == "whisker good")
    low, high = numbers(whisker, "x1", "x2")
    mean = float(next(svg.iter("circle")).attrib["cx"])
    assert low < mean < high < middle
    assert mean == pytest.approx((low + high) / 2, abs=0.1)
    shaded = next(svg.iter("rect"))
    assert numbers(shaded, "x", "width") == [0.0, middle]


def test_the_better_side_follows_the_metric() -> None:
    effect = Interval("", 1.0, None, None, "unsure")
    assert float(next(parse(interval_plot(effect, better="higher", width=200)).iter("rect")).attrib["x"]) == 100.0
    assert not list(parse(interval_plot(effect, better="none")).iter("rect"))
    assert "whisker" not in interval_plot(effect, better="none")


def test_charts_say_in_words_what_they_show() -> None:
    svg = intervals_plot([Interval("inside", -1.5, -2.0, -1.0, "good")], better="lower", title="tone")
    title = next(parse(svg).iter("title")).text
    assert title == "tone: inside \N{MINUS SIGN}1.5, 95 % interval \N{MINUS SIGN}2 to \N{MINUS SIGN}1"


def test_a_line_chart_goes_down_when_the_values_do_and_marks_the_kept_step() -> None:
    lines = [Curve(((0, 0.3), (50, 0.2), (100, 0.1)), "look", marks=True)]
    svg = parse(line_chart(lines, title="loss", kept=[(50, "look")]))
    curve = next(svg.iter("polyline")).attrib["points"]
    xs, ys = zip(*(map(float, point.split(",")) for point in curve.split()), strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys)
    kept = next(line for line in svg.iter("line") if line.get("class") == "kept look")
    assert float(kept.attrib["x1"]) == pytest.approx(xs[1], abs=0.1)


@pytest.mark.parametrize("points", [((0, 0.5),), ((0, 0.0), (10, 0.0)), ((5, -1e-6), (6, 1e-6))])
def test_flat_and_single_curves_are_drawn(points: tuple[tuple[float, float], ...]) -> None:
    svg = line_chart([Curve(points, "look")], title="x")
    parse(svg)
    assert "nan" not in svg
    assert "inf" not in svg


def test_nothing_to_draw_is_nothing() -> None:
    assert line_chart([], title="x") == ""
    assert intervals_plot([], better="lower", title="x") == ""
    assert pairs_plot([], title="x") == ""


def test_pairs_show_every_arm_and_escape_names() -> None:
    svg = pairs_plot([Pair("<b>", {"base": 2.0, "look": 1.0, "plain": 1.9})], title="t")
    spots = {spot.attrib["class"]: float(spot.attrib["cx"]) for spot in parse(svg).iter("circle")}
    assert spots["spot look"] < spots["spot plain"] < spots["spot base"]
    assert not re.search(r"<b>", svg)


def test_smoothing_keeps_length_level_and_order() -> None:
    points = [(float(step), 1.0 + (step % 2)) for step in range(100)]
    smoothed = smooth(points)
    assert [x for x, _ in smoothed] == [x for x, _ in points]
    assert max(abs(y - 1.5) for _, y in smoothed[5:-5]) < 0.2
