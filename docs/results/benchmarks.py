"""The page of all benchmarks: how, when and where each was measured, its metrics and its goals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from docs.results.benchmark_rows import benchmark_rows
from docs.results.values import RESULTS, Results, markdown

LINK = "../benchmarks/results/{name}.json"


def benchmarks(results: Results) -> str:
    """Return each benchmark with its commands, dates and machines, and its metrics."""
    return "\n\n".join(
        f"## {name.replace('_', ' ').capitalize()}\n\n{_conditions(name)}\n\n"
        f"{markdown(('metric', 'measured', 'goal'), rows)}"
        for name, rows in benchmark_rows(results)
    )


def missed_goals(results: Results) -> str:
    """Return the metrics of all benchmarks that miss their goals."""
    rows = [
        (f"[{file}]({LINK.format(name=file)})", f"`{name}`", f"{value:,.6g} {value.unit}".strip(), value.goal)
        for file, metrics in results.items()
        for name, value in vars(metrics).items()
        if value.holds is False
    ]
    return markdown(("benchmark", "metric", "measured", "goal"), rows)


def _conditions(name: str) -> str:
    """Return the runs of a benchmark: one, or one of each part."""
    measured = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    link = f"[All values]({LINK.format(name=name)})"
    return f"{link}. Conditions: {measured['conditions']}.\n\n" + "\n".join(_runs(measured))


def _runs(measured: dict[str, Any]) -> Iterator[str]:
    """Yield each run, with the parts that it measured."""
    parts_by_run: dict[str, list[str]] = {}
    for part, run in (measured.get("parts") or {"": measured}).items():
        line = f"{run['date']}, {run['machine']}: `{run['command']}`"
        parts_by_run.setdefault(line, []).append(part)
    for line, parts in parts_by_run.items():
        yield f"- {line}" + (f" ({', '.join(parts)})" if parts != [""] else "")
