"""Small charts as inline SVG, styled by the page's CSS so that they follow its theme.

They are not drawn by matplotlib, because it takes a second to import and its SVG is five times as
large, with fixed colors and without titles for tooltips and screen readers. Charts are as wide as a
phone (about 340 units) or use percentages of the page's width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from components.evaluate.report.report_data import ReliabilityBin

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 14, 30
SQUARE = 320
CURVE_SIDE = 170
BAR_HEIGHT, BAR_STEP = 15, 22


@dataclass(frozen=True)
class Line:
    """A curve: its CSS class, and (x, y) points; points whose y is not finite are skipped."""

    kind: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """A linear scale from values to positions in the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the position of `value`."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Return about `count` round values within the scale."""
        raw = (self.high - self.low) / count
        size = 10 ** math.floor(math.log10(raw))
        step = next(size * k for k in (1, 2, 2.5, 5, 10) if size * k >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(k * step, 10) for k in range(first, last + 1)]


def percent(value: float, digits: int = 0) -> str:
    """Format a fraction as a percentage."""
    return f"{value * 100:.{digits}f}%"


def shorten(text: str, length: int) -> str:
    """Return `text` with at most `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def interval(value: float, low: float, high: float, required: float | None, title: str) -> Markup:
    """Draw an estimate with its interval and, if given, the minimum that it must reach."""
    least = low if required is None else min(low, required)
    axis = Axis(min(max(0.0, math.floor((least - 0.02) * 20) / 20), 0.9), 1.0, 6.0, 94.0)
    parts = [_line(6, 44, 94, 44, "axis", "%")]
    for tick in axis.ticks(5):
        label = percent(tick, 0 if round(tick * 100, 6) % 1 == 0 else 1)
        parts += [_line(axis(tick), 40, axis(tick), 48, "axis", "%"),
                  _text(axis(tick), 66, label, kind="tick", unit="%")]  # fmt: skip
    parts += _estimate(axis, (value, low, high), y=44, height=14, radius=6, least=0.3)
    if required is not None:
        x = axis(required)
        anchor = "end" if x > 75 else "start" if x < 25 else "middle"
        label = f"required {percent(required, 1)}"
        parts += [_line(x, 22, x, 58, "required", "%"),
                  _text(x, 15, label, anchor, "required-label", "%")]  # fmt: skip
    return _svg("interval", 'width="100%" height="74"', title, parts)


def span(value: float, low: float, high: float, title: str) -> Markup:
    """Draw a small estimate with its interval, on a scale from 0 to 1, for a table cell."""
    axis = Axis(0.0, 1.0, 4.0, 96.0)
    estimate = _estimate(axis, (value, low, high), y=8, height=8, radius=3.5, least=1)
    parts = [_line(4, 8, 96, 8, "axis", "%"), *estimate]
    return _svg("span", 'width="100%" height="16"', title, parts)


def curves(
    lines: Sequence[Line], title: str, *, fraction: bool, marks: Sequence[tuple[float, str]] = (),
    intervals: Sequence[tuple[float, float, float]] = (),
) -> Markup:  # fmt: skip
    """Draw learning curves over epochs or numbers of images.

    Args:
        lines: points (epoch, value).
        title: of the chart.
        fraction: values are fractions, labeled as percentages.
        marks: (epoch, name) of phases that begin there.
        intervals: (epoch, low, high) of values.
    """
    known = [(x, y) for line in lines for x, y in line.points if math.isfinite(y)]
    if not known:
        return Markup("")
    xs, ys = [x for x, _ in known], [y for _, y in known]
    ys += [end for _, *ends in intervals for end in ends]
    low, high = min(ys), max(ys)
    pad = (high - low) * 0.08 or 0.05
    top = min(1.0, high + pad) if fraction else high + pad
    y_axis = Axis(max(0.0, low - pad), top, HEIGHT - BOTTOM, TOP)
    x_axis = Axis(min(xs), max(*xs, min(xs) + 1), LEFT, WIDTH - RIGHT)
    digits = 0 if y_axis.high - y_axis.low > 0.04 else 1
    parts = []
    for tick in y_axis.ticks(4):
        label = percent(tick, digits) if fraction else f"{tick:g}"
        parts += [_line(LEFT, y_axis(tick), WIDTH - RIGHT, y_axis(tick), "gridline"),
                  _text(LEFT - 5, y_axis(tick) + 4, label, "end")]  # fmt: skip
    for tick in x_axis.ticks(6):
        if tick == int(tick):
            parts.append(_text(x_axis(tick), HEIGHT - BOTTOM + 15, f"{tick:g}"))
    for epoch, name in marks:
        x = x_axis(epoch)
        parts += [_line(x, TOP, x, HEIGHT - BOTTOM, "phase"),
                  _text(x + 3, TOP + 8, name, "start", "phase-label")]  # fmt: skip
    for x, low, high in intervals:
        parts.append(_line(x_axis(x), y_axis(low), x_axis(x), y_axis(high), "whisker"))
    for line in lines:
        points = [(x_axis(x), y_axis(y)) for x, y in line.points if math.isfinite(y)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="{line.kind}" points="{path}"/>')
        if len(points) == 1:
            parts.append(_circle(*points[0], 3, line.kind))
    return _svg("curves", f'viewBox="0 0 {WIDTH} {HEIGHT}"', title, parts)


def reliability(
    before: Sequence[ReliabilityBin], after: Sequence[ReliabilityBin], title: str
) -> Markup:
    """Draw accuracy over confidence before and after scaling; circle areas show image counts."""
    x_axis, y_axis = Axis(0, 1, LEFT, SQUARE - RIGHT), Axis(0, 1, SQUARE - BOTTOM, TOP)
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts += [_line(LEFT, y_axis(tick), SQUARE - RIGHT, y_axis(tick), "gridline"),
                  _text(LEFT - 5, y_axis(tick) + 4, f"{tick * 100:g}", "end"),
                  _text(x_axis(tick), SQUARE - BOTTOM + 15, f"{tick * 100:g}")]  # fmt: skip
    parts.append(_line(x_axis(0), y_axis(0), x_axis(1), y_axis(1), "ideal"))
    total = max(sum(b.count for b in after), 1)
    for kind, bins in (("before", before), ("after", after)):
        for b in bins:
            x, y = x_axis(b.confidence), y_axis(b.accuracy)
            hint = (f"{b.count} images, confidence {percent(b.confidence, 1)}, "
                    f"accuracy {percent(b.accuracy, 1)}")  # fmt: skip
            radius = 3 + 9 * math.sqrt(b.count / total)
            parts += [_line(x, y, x, y_axis(b.confidence), f"gap {kind}"),
                      _circle(x, y, radius, kind, hint)]  # fmt: skip
    parts += [_text((LEFT + SQUARE) / 2, SQUARE - 2, "confidence (%)"),
              _text(LEFT, 9, "accuracy (%)", "start")]  # fmt: skip
    return _svg("reliability", f'viewBox="0 0 {SQUARE} {SQUARE}"', title, parts)


def precision_recall(
    name: str, points: Sequence[tuple[float, float]], chosen: tuple[float, float]
) -> Markup:
    """Draw the precision over the recall of one class, and the point of its threshold.

    Args:
        name: of the class.
        points: (recall, precision) by falling threshold.
        chosen: recall and precision at the threshold in use; not drawn if one is not finite.
    """
    x_axis, y_axis = Axis(0, 1, 30, CURVE_SIDE - 14), Axis(0, 1, CURVE_SIDE - 24, 8)
    parts = []
    for tick in (0, 0.5, 1):
        parts += [_line(30, y_axis(tick), x_axis(1), y_axis(tick), "gridline"),
                  _text(26, y_axis(tick) + 4, f"{tick * 100:g}", "end"),
                  _text(x_axis(tick), CURVE_SIDE - 9, f"{tick * 100:g}")]  # fmt: skip
    # Between two thresholds the precision is that of the lower one.
    corners = [(0.0, points[0][1]), *points]
    steps = [(x, y) for (_, y), (x, y_next) in pairwise(corners) for y in (y, y_next)]
    path = " ".join(f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in [corners[0], *steps])
    parts.append(f'<polyline class="validation" points="{path}"/>')
    if all(map(math.isfinite, chosen)):
        recall, precision = chosen
        hint = f"at the threshold: recall {percent(recall, 1)}, precision {percent(precision, 1)}"
        parts.append(_circle(x_axis(recall), y_axis(precision), 5, "dot", hint))
    title = f"{name}: precision over recall"
    return _svg("precision-recall", f'viewBox="0 0 {CURVE_SIDE} {CURVE_SIDE}"', title, parts)


def confusion(matrix: Sequence[Sequence[int]], names: Sequence[str], title: str) -> Markup:
    """Draw a confusion matrix, shaded by the fraction of each row; with numbers if they fit."""
    cell = 34 if len(names) <= 12 else max(6, 420 // len(names))
    labeled, numbered = cell >= 12, cell >= 22
    left = 12 + 6.2 * max(len(shorten(name, 12)) for name in names) if labeled else 8
    upright = labeled and max(map(len, names)) <= 3
    top = 22 if upright else left
    parts = []
    for i, row in enumerate(matrix):
        y, total = top + i * cell, sum(row) or 1
        for j, value in enumerate(row):
            x = left + j * cell
            # The square root keeps rare errors visible.
            strength = math.sqrt(value / total)
            hint = f"{names[i]} predicted as {names[j]}: {value} ({percent(value / total, 1)})"
            parts.append(
                f'<rect class="{"correct" if i == j else "incorrect"}" x="{x:.1f}" y="{y:.1f}" '
                f'width="{cell - 1}" height="{cell - 1}" fill-opacity="{max(strength, 0.04):.2f}">'
                f"<title>{escape(hint)}</title></rect>"
            )
            if numbered and value:
                tone = "on" if strength > 0.6 else "off"
                parts.append(_text(x + cell / 2 - 0.5, y + cell / 2 + 4, str(value), kind=tone))
        if labeled:
            parts.append(_text(left - 5, y + cell / 2 + 4, shorten(names[i], 12), "end"))
    for j, name in enumerate(names if labeled else ()):
        x = left + j * cell + cell / 2
        if upright:
            parts.append(_text(x, top - 6, name))
        else:
            parts.append(f'<g transform="translate({x + 4:.1f},{top - 5:.1f}) rotate(-90)">'
                         f"{_text(0, 0, shorten(name, 12), 'start')}</g>")  # fmt: skip
    side = len(names) * cell + 4
    return _svg("confusion", f'viewBox="0 0 {left + side:g} {top + side:g}"', title, parts)


def bars(rows: Sequence[tuple[str, Sequence[tuple[str, float]], str]], title: str) -> Markup:
    """Draw horizontal bars of stacked parts.

    Args:
        rows: (name, parts as (CSS class, value), label at the end) from top to bottom.
        title: of the chart.
    """
    longest = max((sum(v for _, v in parts) for _, parts, _ in rows), default=0) or 1
    left = 12 + 6.2 * max(len(shorten(name, 16)) for name, _, _ in rows)
    axis = Axis(0, longest, left, WIDTH - 10 - 6.4 * max(len(label) for _, _, label in rows))
    body = []
    for k, (name, parts, label) in enumerate(rows):
        y, before = 4 + k * BAR_STEP, 0.0
        body.append(_text(left - 6, y + 12, shorten(name, 16), "end"))
        for kind, value in parts:
            x, width = axis(before), axis(before + value) - axis(before)
            body.append(f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" '
                        f'height="{BAR_HEIGHT}" rx="2"/>')  # fmt: skip
            before += value
        body.append(_text(axis(before) + 5, y + 12, label, "start"))
    return _svg("bars", f'viewBox="0 0 {WIDTH} {len(rows) * BAR_STEP + 6}"', title, body)


def scatter(groups: Sequence[Line], title: str) -> Markup:
    """Draw groups of points on equal scales, the later ones on top; axes have no numbers."""
    points = [point for group in groups for point in group.points]
    if not points:
        return Markup("")
    half = max(*(abs(value) for point in points for value in point), 1e-9) * 1.05
    x_axis, y_axis = Axis(-half, half, 8, WIDTH - 8), Axis(-half, half, WIDTH - 8, 8)
    parts = [_line(8, y_axis(0), WIDTH - 8, y_axis(0), "gridline"),
             _line(x_axis(0), 8, x_axis(0), WIDTH - 8, "gridline")]  # fmt: skip
    for group in groups:
        parts += [_circle(x_axis(x), y_axis(y), 2, group.kind) for x, y in group.points]
    return _svg("scatter", f'viewBox="0 0 {WIDTH} {WIDTH}"', title, parts)


def _svg(kind: str, size: str, title: str, body: Sequence[str]) -> Markup:
    return Markup(  # noqa: S704 - all names in `body` are escaped where they are inserted
        f'<svg class="chart {kind}" {size} role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def _text(
    x: float, y: float, text: str, anchor: str = "middle", kind: str = "", unit: str = ""
) -> str:
    style = f' class="{kind}"' if kind else ""
    return (f'<text x="{x:.2f}{unit}" y="{y:.1f}" text-anchor="{anchor}"{style}>'
            f"{escape(text)}</text>")  # fmt: skip


def _line(x1: float, y1: float, x2: float, y2: float, kind: str, unit: str = "") -> str:
    return (f'<line class="{kind}" x1="{x1:.2f}{unit}" y1="{y1:.1f}" '
            f'x2="{x2:.2f}{unit}" y2="{y2:.1f}"/>')  # fmt: skip


def _circle(x: float, y: float, radius: float, kind: str, hint: str = "") -> str:
    circle = f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"'
    return f"{circle}><title>{hint}</title></circle>" if hint else f"{circle}/>"


def _estimate(
    axis: Axis, values: tuple[float, float, float], *, y: float, height: float, radius: float,
    least: float,
) -> list[str]:  # fmt: skip
    """Draw (value, low, high) as a dot on a band that is at least `least` percent wide."""
    value, low, high = map(axis, values)
    return [
        f'<rect class="band" x="{low:.2f}%" y="{y - height / 2:g}" rx="{height / 2:g}" '
        f'height="{height:g}" width="{max(high - low, least):.2f}%"/>',
        f'<circle class="dot" cx="{value:.2f}%" cy="{y:g}" r="{radius:g}"/>',
    ]
