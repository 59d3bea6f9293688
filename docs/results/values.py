"""Values of `benchmarks/results`, and how they are written in Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
Results = Mapping[str, Any]
Row = tuple[str, ...]


class Value(float):
    """A measured value: its goal such as `>= 0.9`, whether it reaches it, and its unit."""

    goal: str
    holds: bool | None
    unit: str

    def __new__(
        cls, value: float, goal: str = "", holds: bool | None = None, unit: str = ""
    ) -> Value:
        created = super().__new__(cls, value)
        created.goal, created.holds, created.unit = goal, holds, unit
        return created


def load_results(folder: Path = RESULTS) -> dict[str, SimpleNamespace]:
    """Return the values of each result file, as `results["demo"].wall_time`."""
    results = {}
    for file in sorted(folder.glob("*.json")):
        metrics = json.loads(file.read_text(encoding="utf-8"))["figures"]
        values = {
            name: Value(metric["value"], metric["goal"], metric["holds"], metric["unit"])
            for name, metric in metrics.items()
        }
        results[file.stem] = SimpleNamespace(**values)
    return results


def with_prefix(metrics: Any, prefix: str) -> Callable[[object], Any]:
    """Return a function from the rest of a metric's name to its value."""
    return lambda name: getattr(metrics, f"{prefix}_{name}")


def goal(*values: Any, scale: int = 1, percent: bool = False) -> str:
    """Return the common goal in words, divided by `scale`, and marked if a value misses it."""
    (common,) = {value.goal for value in values}
    sign, limit = common.split()
    if scale != 1:
        limit = f"{float(limit) / scale:g}"
    if percent:
        limit = f"{float(limit):.0%}"
    words = {">=": "at least", "<=": "at most"}[sign]
    mark = "" if all(value.holds for value in values) else "**missed**: "
    return f"{mark}{words} {limit}"


def tiny(value: float) -> str:
    """Return a very small value with one digit, as `2e-8`."""
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def markdown(columns: Row, rows: Iterable[Row]) -> str:
    """Return a table."""
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("  ", " ") for cells in lines)
