"""What a person reads on the terminal at the end of a command."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.progress import Progress
from rich.table import Table

from pipelines.local.run import Summary
from regraft_core.runtime.step import PROGRESS_MARK

if TYPE_CHECKING:
    from pipelines.cluster.runtime_estimate import Estimate
    from pipelines.cluster.watch import Task
    from regraft.diagnosis import Diagnosis
    from regraft.explore.classification import Classified
    from regraft_client.predict_files import FilePrediction

PIPE_WIDTH = 1000


def print_summary(summary: Summary) -> None:
    """Print the verdict of a run, its reasons, and where its report and version are."""
    out = Console(highlight=False, soft_wrap=True)
    reasons = Table(title=f"{summary.verdict} (strategy {summary.strategy})", title_justify="left")
    for column in ("check", "expected", "received", ""):
        reasons.add_column(column)
    for check in summary.reasons:
        mark = "[green]passed[/]" if check.passed else "[red]failed[/]"
        reasons.add_row(check.name, check.expected, check.received, mark)
    out.print(reasons)
    low, high = summary.metrics["test_accuracy_low"], summary.metrics["test_accuracy_high"]
    accuracy = summary.metrics["test_accuracy"]
    out.print(f"test accuracy {accuracy:.4f} (95% interval {low:.4f} to {high:.4f})")
    out.print(f"report  {summary.report}", markup=False)
    if summary.published:
        out.print(f"version {summary.published}", markup=False)


def print_predictions(results: Sequence[FilePrediction]) -> None:
    """Print a table of images with their labels, and whether they are familiar if the model says.

    What was refused has its reason in the place of the confidence.
    """
    from regraft_client.predict_files import format_flag

    answers = [result.prediction for result in results if result.prediction]
    says = any(answer.familiar is not None for answer in answers)
    shown = table("image", "label", "confidence", *(["familiar"] if says else []))
    for result in results:
        found = result.prediction
        if found is None:
            shown.add_row(result.path, "-", result.error)
            continue
        shown.add_row(result.path, found.label, f"{found.confidence:.4f}",
                      *([format_flag(found.familiar)] if says else []))  # fmt: skip
    console().print(shown)


def print_classified(found: Sequence[Classified]) -> None:
    """Print a table of images with their most probable classes."""
    shown = table("image", "class", "probability")
    for one in found:
        if one.error:
            shown.add_row(one.image, "-", one.error)
        for place, guess in enumerate(one.guesses):
            last = place + 1 == len(one.guesses)
            shown.add_row(one.image if place == 0 else "", guess.imagenet_class.name,
                          f"{guess.probability:.4f}", end_section=last)  # fmt: skip
    console().print(shown)


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print what was found on the machine, a remedy below each lack."""
    out = console()
    for finding in diagnosis.findings:
        out.print(f"{finding.state:8} {finding.name}: {finding.found}")
        if finding.remedy:
            out.print(f"         -> {finding.remedy}")
    out.print("usable" if diagnosis.usable else "not usable")


def table(*columns: str, title: str = "", numbers: Sequence[int] = ()) -> Table:
    """Return an empty table whose first column, of names, is folded and never cut short.

    Args:
        columns: their headings.
        title: a line above the table.
        numbers: the places of the columns that are set flush right.
    """
    made = Table(title=title or None, title_justify="left")
    for place, column in enumerate(columns):
        made.add_column(
            column,
            overflow="fold",
            no_wrap=place > 0 and place in numbers,
            justify="right" if place in numbers else "left",
        )
    return made


def console() -> Console:
    """Return where tables go: as wide as the terminal, or as wide as they are in a pipe."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def print_json(value: Any) -> None:
    """Print one JSON value, as `--json` asks for."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_yaml(value: Any) -> None:
    """Print a value as YAML, in its own order."""
    import yaml

    print(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), end="")


@contextlib.contextmanager
def watching() -> Iterator[Callable[[Sequence[Task]], None]]:
    """Yield a function that shows the steps of a run: a live table, or a line for each change."""
    if sys.stderr.isatty():
        with Live(console=Console(stderr=True), auto_refresh=False) as live:
            yield lambda tasks: live.update(_task_table(tasks), refresh=True)
        return
    shown: dict[str, str] = {}

    def print_changes(tasks: Sequence[Task]) -> None:
        for task in tasks:
            line = " ".join(filter(None, (f"{task.name}: {task.state}", _lasted(task), task.error)))
            if shown.get(task.name) != line:
                shown[task.name] = line
                print(line, file=sys.stderr, flush=True)

    yield print_changes


def print_estimates(estimates: Sequence[Estimate]) -> None:
    """Print how long runs would take, a column for each number of nodes."""
    nodes = [str(one.plan.nodes) for one in estimates]
    shown = table("nodes", *nodes, numbers=range(1, len(nodes) + 1))
    for step in estimates[0].steps:
        shown.add_row(step, *(_duration(one.steps[step]) for one in estimates))
    shown.add_section()
    shown.add_row("total", *(_duration(one.total_s) for one in estimates))
    shown.add_row("node hours", *(f"{one.node_hours:.1f}" for one in estimates))
    shown.add_row("activations", *(f"{one.cut_gb:.3g} GB" for one in estimates))
    shown.add_row("", *("kept" if one.cached else "not kept" for one in estimates))
    console().print(shown)


def _duration(seconds: float) -> str:
    """Return a time as people say it, with two of its units."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 120:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{hours / 24:.1f} d"


def _task_table(tasks: Sequence[Task]) -> Table:
    shown = table("step", "state", "time", "", numbers=(2,))
    for task in tasks:
        shown.add_row(task.name, task.state, _lasted(task), task.error)
    return shown


def _lasted(task: Task) -> str:
    return "" if task.seconds is None else f"{task.seconds:.0f} s"


@contextlib.contextmanager
def telling_progress() -> Iterator[None]:
    """Show what a step says on standard error instead, without its mark."""
    with contextlib.redirect_stdout(_Unmarked()):
        yield


class _Unmarked(io.TextIOBase):
    def write(self, text: str) -> int:
        sys.stderr.write(text.replace(PROGRESS_MARK, ""))
        return len(text)


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function (done, all) that moves a progress bar; None away from a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what)
        yield lambda done, all_: bar.update(task, completed=done, total=all_)
