"""Small charts as inline SVG; colors come from the page's style, so that they follow its theme.

Every chart is drawn for a phone's width (about 340 units) and has a title that screen readers say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from components.evaluate.report.report_data import ReliabilityBin

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 14, 30


@dataclass(frozen=True)
class Line:
    """One curve: its style's class, and (x, y) points; y that is not finite leaves a gap."""

    kind: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """A linear scale from values to places in the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of `value`."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Return round values within the scale, at most about `most` of them."""
        raw = (self.high - self.low) / most
        size = 10 ** math.floor(math.log10(raw))
        step = next(size * k for k in (1, 2, 2.5, 5, 10) if size * k >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(k * step, 10) for k in range(first, last + 1)]


def _svg(kind: str, width: float, height: float, title: str, body: Sequence[str]) -> Markup:
    return Markup(  # noqa: S704 - all names in `body` are escaped where they are put in
        f'<svg class="chart {kind}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{"".join(body)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def percent(value: float, digits: int = 0) -> str:
    """Write a share as a percentage."""
    return f"{value * 100:.{digits}f} %"


def short(text: str, most: int) -> str:
    """Cut a long name."""
    return text if len(text) <= most else text[: most - 1] + "…"


def interval(value: float, low: float, high: float, required: float | None, title: str) -> Markup:
    """Draw an estimate with its interval and, if there is one, the line that it must reach.

    Places are shares of the page's width, so that the text keeps its size at every width.
    """
    least = low if required is None else min(low, required)
    floor = min(max(0.0, math.floor((least - 0.02) * 20) / 20), 0.9)
    axis = Axis(floor, 1.0, 6.0, 94.0)
    parts = [_wide_rule(6, 44, 94, 44, "axis")]
    for tick in axis.ticks(5):
        label = percent(tick, 0 if round(tick * 100, 6) % 1 == 0 else 1)
        parts += [_wide_rule(axis(tick), 40, axis(tick), 48, "axis"),
                  _wide_text(axis(tick), 66, label)]  # fmt: skip
    parts += [
        f'<rect class="band" x="{axis(low):.2f}%" y="37" rx="7" height="14" '
        f'width="{max(axis(high) - axis(low), 0.3):.2f}%"/>',
        f'<circle class="dot" cx="{axis(value):.2f}%" cy="44" r="6"/>',
    ]
    if required is not None:
        at = axis(required)
        anchor = "end" if at > 75 else "start" if at < 25 else "middle"
        label = f"required {percent(required, 1)}"
        parts += [_wide_rule(at, 22, at, 58, "required"),
                  _wide_text(at, 15, label, anchor, "required-label")]  # fmt: skip
    return _wide("interval", 74, title, parts)


def span(value: float, low: float, high: float, title: str) -> Markup:
    """Draw a small estimate with its interval, on the scale from 0 to 1, for a table's cell."""
    axis = Axis(0.0, 1.0, 4.0, 96.0)
    return _wide("span", 16, title, [
        _wide_rule(4, 8, 96, 8, "axis"),
        f'<rect class="band" x="{axis(low):.2f}%" y="4" rx="4" height="8" '
        f'width="{max(axis(high) - axis(low), 1):.2f}%"/>',
        f'<circle class="dot" cx="{axis(value):.2f}%" cy="8" r="3.5"/>',
    ])  # fmt: skip


def _wide(kind: str, height: int, title: str, body: Sequence[str]) -> Markup:
    return Markup(  # noqa: S704 - as in _svg
        f'<svg class="chart {kind}" width="100%" height="{height}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{"".join(body)}</svg>'
    )


def _wide_text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "tick") -> str:
    return (f'<text class="{kind}" x="{x:.2f}%" y="{y:g}" text-anchor="{anchor}">'
            f"{escape(text)}</text>")  # fmt: skip


def _wide_rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.2f}%" y1="{y1:g}" x2="{x2:.2f}%" y2="{y2:g}"/>'


def curves(
    lines: Sequence[Line], title: str, *, share: bool, marks: Sequence[tuple[float, str]] = ()
) -> Markup:
    """Draw learning curves over epochs.

    Args:
        lines: points (epoch, value).
        title: of the chart.
        share: values are shares, written as percentages and never above 1.
        marks: (epoch, name) of phases that begin there.
    """
    known = [(x, y) for line in lines for x, y in line.points if math.isfinite(y)]
    if not known:
        return Markup("")
    xs, ys = [x for x, _ in known], [y for _, y in known]
    low, high = min(ys), max(ys)
    pad = (high - low) * 0.08 or 0.05
    y_axis = Axis(max(0.0, low - pad), min(1.0, high + pad) if share else high + pad,
                  HEIGHT - BOTTOM, TOP)  # fmt: skip
    x_axis = Axis(min(xs), max(*xs, min(xs) + 1), LEFT, WIDTH - RIGHT)
    parts = []
    for tick in y_axis.ticks(4):
        label = percent(tick, 0 if y_axis.high - y_axis.low > 0.04 else 1) if share else f"{tick:g}"
        parts += [_rule(LEFT, y_axis(tick), WIDTH - RIGHT, y_axis(tick), "gridline"),
                  _text(LEFT - 5, y_axis(tick) + 4, label, "end")]  # fmt: skip
    for tick in x_axis.ticks(6):
        if tick == int(tick):
            parts.append(_text(x_axis(tick), HEIGHT - BOTTOM + 15, f"{tick:g}"))
    for epoch, name in marks:
        at = x_axis(epoch)
        parts += [_rule(at, TOP, at, HEIGHT - BOTTOM, "phase"),
                  _text(at + 3, TOP + 8, name, "start", "phase-label")]  # fmt: skip
    for line in lines:
        points = [(x_axis(x), y_axis(y)) for x, y in line.points if math.isfinite(y)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="{line.kind}" points="{path}"/>')
        if len(points) == 1:
            x, y = points[0]
            parts.append(f'<circle class="{line.kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    return _svg("curves", WIDTH, HEIGHT, title, parts)


def reliability(
    before: Sequence[ReliabilityBin], after: Sequence[ReliabilityBin], title: str
) -> Markup:
    """Draw accuracy over confidence, before and after temperature scaling; area tells the count."""
    size = 320
    x_axis, y_axis = Axis(0, 1, LEFT, size - RIGHT), Axis(0, 1, size - BOTTOM, TOP)
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts += [_rule(LEFT, y_axis(tick), size - RIGHT, y_axis(tick), "gridline"),
                  _text(LEFT - 5, y_axis(tick) + 4, f"{tick * 100:g}", "end"),
                  _text(x_axis(tick), size - BOTTOM + 15, f"{tick * 100:g}")]  # fmt: skip
    parts.append(_rule(x_axis(0), y_axis(0), x_axis(1), y_axis(1), "ideal"))
    total = max(sum(b.count for b in after), 1)
    for kind, bins in (("before", before), ("after", after)):
        for b in bins:
            radius = 3 + 9 * math.sqrt(b.count / total)
            x, y = x_axis(b.confidence), y_axis(b.accuracy)
            about = (f"{b.count} images, confidence {percent(b.confidence, 1)}, "
                     f"right {percent(b.accuracy, 1)}")  # fmt: skip
            parts += [_rule(x, y, x, y_axis(b.confidence), f"gap {kind}"),
                      f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">'
                      f"<title>{about}</title></circle>"]  # fmt: skip
    parts += [_text((LEFT + size) / 2, size - 2, "confidence, %"),
              _text(LEFT, 9, "right, %", "start")]  # fmt: skip
    return _svg("reliability", size, size, title, parts)


def confusion(matrix: Sequence[Sequence[int]], names: Sequence[str], title: str) -> Markup:
    """Draw a confusion matrix, shaded by the share of each row; numbers where they fit."""
    count = len(names)
    cell = 34 if count <= 12 else max(6, 420 // count)
    labeled, numbered = cell >= 12, cell >= 22
    edge = 12 + 6.2 * max(len(short(name, 12)) for name in names) if labeled else 8
    head = edge if labeled and max(map(len, names)) > 3 else (22 if labeled else 8)
    parts = []
    for i, row in enumerate(matrix):
        total = sum(row)
        for j, value in enumerate(row):
            share = value / total if total else 0.0
            x, y = edge + j * cell, head + i * cell
            kind = "right" if i == j else "wrong"
            # A root keeps the rare mistakes visible.
            strength = math.sqrt(share) if share else 0.0
            about = escape(f"{names[i]} called {names[j]}: {value} ({percent(share, 1)})")
            parts.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{cell - 1}" '
                f'height="{cell - 1}" fill-opacity="{max(strength, 0.04):.2f}">'
                f"<title>{about}</title></rect>"
            )
            if numbered and value:
                tone = "on" if strength > 0.6 else "off"
                parts.append(_text(x + cell / 2 - 0.5, y + cell / 2 + 4, str(value), kind=tone))
        if labeled:
            parts.append(
                _text(edge - 5, head + i * cell + cell / 2 + 4, short(names[i], 12), "end")
            )
    if labeled:
        for j, name in enumerate(names):
            x = edge + j * cell + cell / 2
            if head == 22:
                parts.append(_text(x, head - 6, name))
            else:
                parts.append(f'<g transform="translate({x + 4:.1f},{head - 5:.1f}) rotate(-90)">'
                             f"{_text(0, 0, short(name, 12), 'start')}</g>")  # fmt: skip
    return _svg("confusion", edge + count * cell + 4, head + count * cell + 4, title, parts)


def bars(rows: Sequence[tuple[str, Sequence[tuple[str, float]], str]], title: str) -> Markup:
    """Draw horizontal bars, each of stacked parts.

    Args:
        rows: (name, parts as (style's class, value), what stands at the end) from top to bottom.
        title: of the chart.
    """
    longest = max((sum(v for _, v in parts) for _, parts, _ in rows), default=0) or 1
    edge = 12 + 6.2 * max(len(short(name, 16)) for name, _, _ in rows)
    room = 10 + 6.4 * max(len(end) for _, _, end in rows)
    axis = Axis(0, longest, edge, WIDTH - room)
    drawn = []
    for k, (name, parts, end) in enumerate(rows):
        y, x = 4 + k * 22, float(edge)
        drawn.append(_text(edge - 6, y + 12, short(name, 16), "end"))
        for kind, value in parts:
            width = axis(value) - edge
            drawn.append(f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" '
                         'height="15" rx="2"/>')  # fmt: skip
            x += width
        drawn.append(_text(x + 5, y + 12, end, "start"))
    return _svg("bars", WIDTH, len(rows) * 22 + 6, title, drawn)
