"""Writes measured values from `benchmarks/results` into the README and the pages.

A table is written between two comments, by the function of that name:

    <!-- results: training_speed -->
    <!-- end of results -->

A value in a sentence has a comment directly after it, and keeps its number of decimals:

    33.4<!-- result: training.vgg16_head_speedup_over_keras_defaults --> times
    1.8<!-- result: demo.peak_memory / 1000 --> GB

The default name of the container image, with its version, is that of the code.

`python -m docs.results.pages` rewrites all pages; a test fails if a page is not up to date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from docs.results import benchmarks, data_tables, scale_rows, serving_tables, training_tables
from docs.results.values import ROOT, Results, load_results, tiny
from regraft_core.runtime.container_image import IMAGE

TABLES: Mapping[str, Callable[[Results], str]] = {
    "benchmarks": benchmarks.benchmarks,
    "missed_goals": benchmarks.missed_goals,
    "training_speed": training_tables.training_speed,
    "training_limits": training_tables.training_limits,
    "training_scaling": training_tables.training_scaling,
    "accuracy": training_tables.accuracy,
    "familiarity": serving_tables.familiarity,
    "coverage": serving_tables.coverage,
    "abstention": serving_tables.abstention,
    "label_choices": training_tables.label_choices,
    "label_intervals": serving_tables.label_intervals,
    "head_penalties": training_tables.head_penalties,
    "scale_catalog": data_tables.scale_catalog,
    "scale_steps": data_tables.scale_steps,
    "scale": scale_rows.scale_table,
    "drift": serving_tables.drift,
    "backbones": training_tables.backbones,
    "ingest_speed": data_tables.ingest_speed,
    "ingest_forms": data_tables.ingest_forms,
    "export_speed": serving_tables.export_speed,
    "serving_metrics": serving_tables.serving_metrics,
    "serving_batching": serving_tables.serving_batching,
    "local_orchestration": data_tables.local_orchestration,
    "review": data_tables.review,
}
_TABLE = re.compile(
    r"(?P<start><!-- results: (?P<name>\w+) -->\n).*?(?P<end><!-- end of results -->)", re.DOTALL
)
_VALUE = re.compile(
    r"(?P<number>[+-]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?)"
    r"(?P<marker><!-- result: (?P<result>\w+)\.(?P<metric>\w+)"
    r"(?: (?P<operator>[*/]) (?P<factor>\d+))? -->)"
)
_IMAGE = re.compile(rf"{IMAGE.partition(':')[0]}:\d+\.\d+\.\d+")
_MARKER = re.compile(r"<!-- (?:results?: |end of results)")


def pages() -> list[Path]:
    """Return README.md, the examples and the written pages of the site."""
    written = (p for p in (ROOT / "docs").rglob("*.md") if p.parent.name != "reference")
    return [ROOT / "README.md", *sorted((ROOT / "examples").glob("*.md")), *sorted(written)]


def render(text: str, results: Results) -> str:
    """Return a page with the values and tables of `results`.

    Raises:
        ValueError: a marker has a typo, or names a table or a metric that does not exist.
    """
    text, table_count = _TABLE.subn(
        lambda match: f"{match['start']}{_table(match['name'], results)}\n{match['end']}", text
    )
    text, value_count = _VALUE.subn(lambda match: _value(match, results) + match["marker"], text)
    text = _IMAGE.sub(IMAGE, text)
    markers = len(_MARKER.findall(text))
    if markers != 2 * table_count + value_count:
        raise ValueError(
            f"expected {markers} markers of results to follow a number or to enclose a table, "
            f"got {2 * table_count + value_count} that do"
        )
    return text


def update(files: Iterable[Path]) -> list[Path]:
    """Rewrite the pages that are not up to date; return them."""
    results = load_results()
    changed = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        try:
            rendered = render(text, results)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        if rendered != text:
            file.write_text(rendered, encoding="utf-8")
            changed.append(file)
    return changed


def _table(name: str, results: Results) -> str:
    if name not in TABLES:
        raise ValueError(f"expected a table such as {', '.join(TABLES)}, got {name!r}")
    return TABLES[name](results)


def _value(match: re.Match[str], results: Results) -> str:
    """Return the value that a marker names, formatted like the number before the marker."""
    value = getattr(results.get(match["result"]), match["metric"], None)
    if value is None:
        raise ValueError(
            f"expected a metric of the results, got {match['result']}.{match['metric']}"
        )
    factor = float(match["factor"] or 1)
    value = value * factor if match["operator"] == "*" else value / factor
    number = match["number"]
    if "e" in number:
        return tiny(value)
    sign = "+" if number.startswith("+") else ""
    return f"{value:{sign},.{len(number.partition('.')[2])}f}"


if __name__ == "__main__":
    for page in update(pages()):
        print(page.relative_to(ROOT))
