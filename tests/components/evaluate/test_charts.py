"""The geometry of the charts: coordinates in the SVG are compared with the values they show."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from components.evaluate.report import charts
from components.evaluate.report.charts import HEIGHT, SQUARE, WIDTH, Axis, Line
from components.evaluate.report.report_data import ReliabilityBin

# Coordinates are rounded to a tenth.
ROUNDING = 0.051
NAN = math.nan
Element = ElementTree.Element


def parse(svg: Markup) -> Element:
    """Return the SVG without its title."""
    root = ElementTree.fromstring(str(svg))
    assert root.tag == "svg" and root.get("aria-label") == root.findtext("title")
    return root


def number(element: Element, name: str) -> float:
    return float((element.get(name) or "").removesuffix("%"))


def numbers(element: Element, *names: str) -> list[float]:
    return [number(element, name) for name in names]


def of_class(root: Element, tag: str, kind: str) -> list[Element]:
    return [element for element in root.iter(tag) if element.get("class") == kind]


def one(root: Element, tag: str, kind: str) -> Element:
    (element,) = of_class(root, tag, kind)
    return element


def view_box(root: Element) -> tuple[float, float]:
    left, top, width, height = map(float, (root.get("viewBox") or "").split())
    assert (left, top) == (0, 0)
    return width, height


def labels(root: Element, coordinate: str, where: Callable[[Element], bool]) -> Iterator[tuple]:
    """Yield (labeled value, coordinate) of the numeric texts selected by `where`."""
    for text in root.iter("text"):
        if where(text) and re.fullmatch(r"[0-9.]+%?", text.text or ""):
            value = float((text.text or "").removesuffix("%"))
            yield value / (100 if (text.text or "").endswith("%") else 1), number(text, coordinate)


def scale_from(pairs: Iterator[tuple], shift: float = 0.0) -> Callable[[float], float]:
    """Return the linear scale that the axis labels show, after checking that it is linear."""
    known = sorted(pairs)
    assert len(known) >= 2
    (low, start), (high, end) = known[0], known[-1]

    def scale(value: float) -> float:
        return float(start + (value - low) / (high - low) * (end - start) + shift)

    for value, position in known:
        assert position + shift == pytest.approx(scale(value), abs=2 * ROUNDING)
    return scale


def test_an_axis_is_linear_between_its_ends() -> None:
    axis = Axis(2.0, 4.0, 100.0, 20.0)
    assert [axis(2.0), axis(2.5), axis(4.0)] == [100.0, 80.0, 20.0]


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (0.0, 1.0, 5, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.85, 1.0, 5, [0.85, 0.9, 0.95, 1.0]),
        (1.0, 20.0, 6, [5.0, 10.0, 15.0, 20.0]),
        (0.031, 0.069, 4, [0.04, 0.05, 0.06]),
        (0.0, 0.1, 4, [0.0, 0.025, 0.05, 0.075, 0.1]),
    ],
)
def test_ticks_are_round_values_within_the_axis(low, high, count, expected) -> None:
    assert Axis(low, high, 0.0, 1.0).ticks(count) == pytest.approx(expected)


@pytest.mark.parametrize("required", [None, 0.9, 0.999, 0.5])
def test_interval_shows_estimate_bounds_and_minimum(required) -> None:
    root = parse(charts.interval(0.93, 0.88, 0.96, required, "accuracy"))
    axis_line = next(iter(of_class(root, "line", "axis")))
    assert numbers(axis_line, "x1", "y1", "x2", "y2") == [6, 44, 94, 44]
    scale = scale_from(labels(root, "x", lambda text: text.get("class") == "tick"))
    assert scale(1.0) == pytest.approx(94, abs=ROUNDING)
    least = 0.88 if required is None else min(0.88, required)
    assert 6 <= scale(least) < 94
    band, dot = one(root, "rect", "band"), one(root, "circle", "dot")
    assert number(band, "x") == pytest.approx(scale(0.88), abs=ROUNDING)
    end = number(band, "x") + number(band, "width")
    assert end == pytest.approx(scale(0.96), abs=ROUNDING)
    assert number(dot, "cx") == pytest.approx(scale(0.93), abs=ROUNDING)
    assert number(dot, "cy") == number(band, "y") + number(band, "height") / 2 == 44
    lines = of_class(root, "line", "required")
    assert len(lines) == (required is not None)
    for line in lines:
        assert number(line, "x1") == number(line, "x2")
        assert number(line, "x1") == pytest.approx(scale(required), abs=ROUNDING)
        label = one(root, "text", "required-label")
        assert label.text == f"required {required * 100:.1f}%"
        assert number(label, "x") == number(line, "x1")
    for tick, label in zip(of_class(root, "line", "axis")[1:], of_class(root, "text", "tick"),
                           strict=True):  # fmt: skip
        assert number(tick, "x1") == number(tick, "x2") == number(label, "x")


def test_an_interval_without_width_is_visible() -> None:
    root = parse(charts.interval(1.0, 1.0, 1.0, None, "accuracy"))
    assert number(one(root, "rect", "band"), "width") == 0.3


@pytest.mark.parametrize(
    ("value", "low", "high"), [(0.5, 0.25, 0.75), (0.9, 0.5, 1.0), (0.0, 0.0, 0.3)]
)
def test_span_shows_estimate_and_bounds_from_0_to_1(value, low, high) -> None:
    root = parse(charts.span(value, low, high, "recall"))
    axis, band, dot = one(root, "line", "axis"), one(root, "rect", "band"), one(
        root, "circle", "dot")  # fmt: skip
    assert numbers(axis, "x1", "x2") == [4, 96]
    assert number(dot, "cx") == pytest.approx(4 + 92 * value, abs=ROUNDING)
    assert number(band, "x") == pytest.approx(4 + 92 * low, abs=ROUNDING)
    end = number(band, "x") + number(band, "width")
    assert end == pytest.approx(4 + 92 * high, abs=ROUNDING)
    assert number(dot, "cy") == number(band, "y") + number(band, "height") / 2


def curve_scales(root: Element) -> tuple[Callable[[float], float], Callable[[float], float]]:
    # Labels of the y axis end left of it and are 4 units lower than their gridlines.
    y_scale = scale_from(labels(root, "y", lambda text: text.get("text-anchor") == "end"), -4)
    x_scale = scale_from(labels(root, "x", lambda text: text.get("text-anchor") == "middle"))
    return x_scale, y_scale


def points_of(root: Element, kind: str) -> list[tuple[float, float]]:
    path = one(root, "polyline", kind).get("points") or ""
    return [tuple(map(float, pair.split(","))) for pair in path.split()]  # type: ignore[misc]


@pytest.mark.parametrize("fraction", [True, False])
def test_curves_show_their_points(fraction) -> None:
    train = [(1, 0.2), (2, 0.55), (3, 0.7), (4, 0.9)]
    validation = [(1, 0.3), (2, NAN), (3, 0.5), (4, 0.45)]
    lines = [Line("train", train), Line("validation", validation)]
    root = parse(charts.curves(lines, "accuracy", fraction=fraction, marks=[(3, "top")]))
    assert view_box(root) == (WIDTH, HEIGHT)
    x_scale, y_scale = curve_scales(root)
    for kind, points in (("train", train), ("validation", validation)):
        expected = [(x_scale(x), y_scale(y)) for x, y in points if not math.isnan(y)]
        received = points_of(root, kind)
        assert len(received) == len(expected)
        for ours, theirs in zip(received, expected, strict=True):
            assert ours == pytest.approx(theirs, abs=3 * ROUNDING)
    drawn = points_of(root, "train")
    assert [x for x, _ in drawn] == pytest.approx([40, 136.7, 233.3, 330], abs=ROUNDING)
    assert all(above > below for (_, above), (_, below) in itertools.pairwise(drawn))
    assert all(14 <= y <= 170 for _, y in drawn)
    phase = one(root, "line", "phase")
    assert numbers(phase, "x1", "x2") == pytest.approx([x_scale(3)] * 2, abs=2 * ROUNDING)
    assert numbers(phase, "y1", "y2") == [14, 170]
    for line in of_class(root, "line", "gridline"):
        assert numbers(line, "x1", "x2") == [40, 330]
        assert number(line, "y1") == number(line, "y2")


def test_the_axis_of_fractions_ends_at_100_percent_and_never_below_0() -> None:
    lines = [Line("train", [(1, 0.0), (2, 1.0)])]
    root = parse(charts.curves(lines, "accuracy", fraction=True))
    assert points_of(root, "train") == [(40.0, 170.0), (330.0, 14.0)]
    root = parse(charts.curves(lines, "loss", fraction=False))
    (_, bottom), (_, top) = points_of(root, "train")
    assert bottom == 170 and top == pytest.approx(14 + 156 * 0.08 / 1.08, abs=ROUNDING)


def test_a_curve_of_one_point_is_a_circle() -> None:
    root = parse(charts.curves([Line("train", [(1, 0.5)])], "accuracy", fraction=True))
    circle = one(root, "circle", "train")
    assert [(*numbers(circle, "cx", "cy"),)] == points_of(root, "train") == [(40.0, 92.0)]


def test_curves_without_finite_values_are_empty() -> None:
    assert charts.curves([Line("train", [(1, NAN)])], "loss", fraction=False) == ""


def reliability_bin(count: int, confidence: float, accuracy: float) -> ReliabilityBin:
    return ReliabilityBin(low=0, high=1, count=count, confidence=confidence, accuracy=accuracy)


def test_reliability_shows_accuracy_over_confidence() -> None:
    before = [reliability_bin(100, 0.9, 0.6)]
    after = [reliability_bin(25, 0.3, 0.4), reliability_bin(75, 0.8, 0.7)]
    root = parse(charts.reliability(before, after, "reliability"))
    assert view_box(root) == (SQUARE, SQUARE)
    y_scale = scale_from(labels(root, "y", lambda text: text.get("text-anchor") == "end"), -4)
    x_scale = scale_from(labels(root, "x", lambda text: text.get("text-anchor") == "middle"))
    corners = [x_scale(0), x_scale(100), y_scale(0), y_scale(100)]
    assert corners == pytest.approx([40, 310, 290, 14], abs=ROUNDING)
    ideal = numbers(one(root, "line", "ideal"), "x1", "x2", "y1", "y2")
    assert ideal == pytest.approx(corners, abs=ROUNDING)
    for kind, bins in (("before", before), ("after", after)):
        circles, gaps = of_class(root, "circle", kind), of_class(root, "line", f"gap {kind}")
        for circle, gap, b in zip(circles, gaps, bins, strict=True):
            x, y = x_scale(b.confidence * 100), y_scale(b.accuracy * 100)
            assert numbers(circle, "cx", "cy") == pytest.approx([x, y], abs=2 * ROUNDING)
            expected = [x, x, y, y_scale(b.confidence * 100)]
            received = numbers(gap, "x1", "x2", "y1", "y2")
            assert received == pytest.approx(expected, abs=2 * ROUNDING)
            # The area beyond the smallest circle is proportional to the images.
            radius = number(circle, "r")
            assert ((radius - 3) / 9) ** 2 == pytest.approx(b.count / 100, abs=0.02)
            assert circle.findtext("title") == (
                f"{b.count} images, confidence {b.confidence:.1%}, accuracy {b.accuracy:.1%}"
            )


MATRIX = [[8, 2, 0], [0, 5, 0], [1, 0, 3]]


@pytest.mark.parametrize("names", [["a", "b", "c"], ["cat", "dog", "a long name of a class"]])
def test_confusion_has_true_classes_by_row_and_predicted_ones_by_column(names) -> None:
    root = parse(charts.confusion(MATRIX, names, "confusion"))
    rects = list(root.iter("rect"))
    assert len(rects) == 9
    left, top = numbers(rects[0], "x", "y")
    for index, rect in enumerate(rects):
        i, j = divmod(index, 3)
        count, total = MATRIX[i][j], sum(MATRIX[i])
        assert numbers(rect, "x", "y") == pytest.approx([left + 34 * j, top + 34 * i], abs=ROUNDING)
        assert numbers(rect, "width", "height") == [33, 33]
        assert rect.get("class") == ("correct" if i == j else "incorrect")
        strength = max(math.sqrt(count / total), 0.04)
        assert number(rect, "fill-opacity") == pytest.approx(strength, abs=0.005)
        hint = f"{names[i]} predicted as {names[j]}: {count} ({count / total:.1%})"
        assert rect.findtext("title") == hint
    counts = {(*numbers(text, "x", "y"),): text.text for text in root.iter("text")
              if text.get("class") in ("on", "off")}  # fmt: skip
    assert sorted(counts.values()) == ["1", "2", "3", "5", "8"]
    for (x, y), count in counts.items():
        j, i = round((x - left - 16.5) / 34), round((y - top - 21) / 34)
        assert (x, y) == pytest.approx((left + 34 * j + 16.5, top + 34 * i + 21), abs=ROUNDING)
        assert count == str(MATRIX[i][j])
    width, height = view_box(root)
    last = rects[-1]
    assert number(last, "x") + 34 <= width and number(last, "y") + 34 <= height


def test_confusion_labels_its_rows_and_columns() -> None:
    root = parse(charts.confusion(MATRIX, ["a", "b", "c"], "confusion"))
    rects = list(root.iter("rect"))
    rows = [text for text in root.iter("text") if text.get("text-anchor") == "end"]
    assert [text.text for text in rows] == ["a", "b", "c"]
    for text, rect in zip(rows, rects[::3], strict=True):
        assert number(text, "y") == pytest.approx(number(rect, "y") + 21, abs=ROUNDING)
        assert number(text, "x") < number(rect, "x")
    columns = [text for text in root.iter("text") if text.text in ("a", "b", "c")][3:]
    for text, rect in zip(columns, rects[:3], strict=True):
        assert number(text, "x") == pytest.approx(number(rect, "x") + 17, abs=ROUNDING)
        assert number(text, "y") < number(rect, "y")


def test_long_names_of_columns_are_rotated_above_them() -> None:
    names = ["first class", "second class", "third"]
    root = parse(charts.confusion(MATRIX, names, "confusion"))
    rects = list(root.iter("rect"))
    groups = list(root.iter("g"))
    assert [group.findtext("text") for group in groups] == names
    for group, rect in zip(groups, rects[:3], strict=True):
        match = re.fullmatch(
            r"translate\(([0-9.]+),([0-9.]+)\) rotate\(-90\)", group.get("transform") or ""
        )
        assert match
        x, y = map(float, match.groups())
        assert x == pytest.approx(number(rect, "x") + 17 + 4, abs=ROUNDING)
        assert y == pytest.approx(number(rect, "y") - 5, abs=ROUNDING)


def test_a_class_without_images_has_empty_cells() -> None:
    root = parse(charts.confusion([[0, 0], [0, 4]], ["a", "b"], "confusion"))
    assert [number(rect, "fill-opacity") for rect in root.iter("rect")] == [0.04, 0.04, 0.04, 1.0]


ROWS = [("ingest", [("train", 6.0), ("test", 2.0)], "8 s"), ("train_head", [("train", 4.0)], "4 s"),
        ("conclude", [("train", 0.0)], "0 s")]  # fmt: skip


def test_bars_are_as_long_as_their_values() -> None:
    root = parse(charts.bars(ROWS, "seconds"))
    width, height = view_box(root)
    assert (width, height) == (WIDTH, 3 * 22 + 6)
    long, stacked, short, empty = root.iter("rect")
    left, full = number(long, "x"), number(long, "width") + number(stacked, "width")
    assert number(stacked, "x") == pytest.approx(left + number(long, "width"), abs=2 * ROUNDING)
    for rect, value in ((long, 6), (stacked, 2), (short, 4), (empty, 0)):
        assert number(rect, "width") == pytest.approx(full * value / 8, abs=2 * ROUNDING)
    assert number(short, "x") == number(empty, "x") == left
    assert [number(rect, "y") for rect in (long, stacked, short, empty)] == [4, 4, 26, 48]
    assert [rect.get("class") for rect in (long, stacked)] == ["train", "test"]
    # The longest bar fills the room between the names and its label.
    assert full == pytest.approx(WIDTH - 10 - 6.4 * 3 - left, abs=2 * ROUNDING)
    texts = list(root.iter("text"))
    assert [text.text for text in texts] == ["ingest", "8 s", "train_head", "4 s", "conclude",
                                             "0 s"]  # fmt: skip
    ends = [left + full, left + full / 2, left]
    for name, label, y, end in zip(texts[::2], texts[1::2], (4, 26, 48), ends, strict=True):
        assert number(name, "y") == number(label, "y") == y + 12
        assert number(name, "x") == pytest.approx(left - 6, abs=ROUNDING)
        assert number(label, "x") == pytest.approx(end + 5, abs=2 * ROUNDING)


def test_bars_of_nothing_have_no_length() -> None:
    root = parse(charts.bars([("a", [("fill", 0.0)], "0")], "seconds"))
    assert [number(rect, "width") for rect in root.iter("rect")] == [0]


def test_long_names_are_shortened() -> None:
    root = parse(charts.bars([("a very long name of a step", [("fill", 1.0)], "1")], "seconds"))
    assert next(root.iter("text")).text == "a very long nam…"


def test_names_are_escaped() -> None:
    name = "<b>&"
    for svg in (
        charts.confusion([[1]], [name], name),
        charts.bars([(name, [("fill", 1.0)], name)], name),
    ):
        root = parse(svg)
        assert root.get("aria-label") == name and root.find(".//b") is None
