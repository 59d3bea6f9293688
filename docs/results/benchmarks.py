"""The page of all benchmarks: how, when and where each was measured, its metrics and its goals."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from docs.results.benchmark_rows import benchmark_rows
from docs.results.values import RESULTS, Results, markdown

WIDTH = 88  # of a line of code on the site
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
        (
            f"[{file}]({LINK.format(name=file)})",
            f"`{name}`",
            f"{value:,.6g} {value.unit}".strip(),
            value.goal,
        )
        for file, metrics in results.items()
        for name, value in vars(metrics).items()
        if value.holds is False
    ]
    return markdown(("benchmark", "metric", "measured", "goal"), rows)


def _conditions(name: str) -> str:
    """Return how a benchmark was measured, as its result file has it."""
    measured = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    lines = [textwrap.fill(measured["conditions"], WIDTH), *_runs(measured)]
    text = "\n".join(lines)
    return f"```text\n{text}\n```\n\n[All values]({LINK.format(name=name)})"


def _runs(measured: dict[str, Any]) -> Iterator[str]:
    """Yield each run, with the parts that it measured."""
    parts_by_run: dict[tuple[str, str], list[str]] = {}
    for part, run in (measured.get("parts") or {"": measured}).items():
        place = f"{run['date']}, {run['machine']}"
        parts_by_run.setdefault((place, run["command"]), []).append(part)
    for (place, command), parts in parts_by_run.items():
        yield place + (f": {', '.join(parts)}" if parts != [""] else "")
        yield textwrap.fill(command, WIDTH, initial_indent="  ", subsequent_indent="    ",
                            break_long_words=False, break_on_hyphens=False)  # fmt: skip
