"""What a person reads on the terminal at the end of a command."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pipelines.local import Summary

if TYPE_CHECKING:
    from pipelines.classification import Classified
    from serving.client.folder import FilePrediction

PIPE_WIDTH = 1000


def print_summary(summary: Summary) -> None:
    """Print the verdict of a run, its reasons, and where its report and version are."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table(title=f"{summary.verdict} (strategy {summary.strategy})", title_justify="left")
    for column in ("check", "expected", "received", ""):
        table.add_column(column)
    for check in summary.reasons:
        mark = "[green]passed[/]" if check.passed else "[red]failed[/]"
        table.add_row(check.name, check.expected, check.received, mark)
    console.print(table)
    low, high = summary.metrics["test_accuracy_low"], summary.metrics["test_accuracy_high"]
    accuracy = summary.metrics["test_accuracy"]
    console.print(f"test accuracy {accuracy:.4f} (95% interval {low:.4f} to {high:.4f})")
    console.print(f"report  {summary.report}", markup=False)
    if summary.published:
        console.print(f"version {summary.published}", markup=False)


def print_predictions(results: Sequence[FilePrediction]) -> None:
    """Print a table of pictures with their labels."""
    table = _table("picture", "label", "confidence")
    for result in results:
        found = result.prediction
        answer = (found.label, f"{found.confidence:.4f}") if found else ("-", result.error)
        table.add_row(result.path, *answer)
    _console().print(table)


def print_classified(found: Sequence[Classified]) -> None:
    """Print a table of pictures with their most probable classes."""
    table = _table("picture", "class", "probability")
    for one in found:
        if one.error:
            table.add_row(one.picture, "-", one.error)
        for place, guess in enumerate(one.guesses):
            last = place + 1 == len(one.guesses)
            table.add_row(one.picture if place == 0 else "", guess.imagenet_class.name,
                          f"{guess.probability:.4f}", end_section=last)  # fmt: skip
    _console().print(table)


def _table(*columns: str) -> Table:
    """Return an empty table whose first column, of names, is folded and never cut short."""
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold" if number == 0 else "ellipsis")
    return table


def _console() -> Console:
    """Return where tables go: as wide as the terminal, or as wide as they are in a pipe."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def print_json(value: Any) -> None:
    """Print one JSON value, as `--json` asks for."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function (done, all) that moves a progress bar; None away from a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what)
        yield lambda done, all_: bar.update(task, completed=done, total=all_)
