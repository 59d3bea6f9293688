"""Tables, lines and progress bars of the commands."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from pipelines.local.run import Summary
from regraft_core.formats.run_outcome import main_metric
from regraft_core.runtime.printable import one_line, printable, printable_json
from regraft_core.runtime.step_reports import PROGRESS_MARK

if TYPE_CHECKING:
    from pipelines.cluster.run_tasks import Task
    from pipelines.cluster.runtime_estimate import Estimate
    from regraft.diagnosis import Diagnosis
    from regraft.explore.classification import ClassifiedImage
    from regraft.store_cleanup import Cleanup
    from regraft_client.predict_files import FilePrediction
    from regraft_client.results import Prediction

PIPE_WIDTH = 1000


def print_note(text: str) -> None:
    """Print a line on standard error, next to the progress."""
    print(one_line(text), file=sys.stderr, flush=True)


class SafeConsole(Console):
    """A console for which every text is text: no markup, no emoji codes, no escape sequences.

    Names of classes and files come from the data.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text without control characters; rich calls this for each text."""
        return super().render_str(printable(text), **options)


def print_line(text: object) -> None:
    """Print a line on standard output; names and paths in it may hold any character."""
    print(printable(str(text)))


def print_summary(summary: Summary) -> None:
    """Print the verdict of a run, the gate's checks, and the paths of its report and version."""
    out = SafeConsole(soft_wrap=True)
    checks = Table(title=f"{summary.verdict} (strategy {summary.strategy})", title_justify="left")
    for column in ("check", "expected", "received", ""):
        checks.add_column(column)
    for check in summary.reasons:
        mark = Text("passed", "green") if check.passed else Text("failed", "red")
        checks.add_row(*map(one_line, (check.name, check.expected, check.received)), mark)
    out.print(checks)
    name = main_metric(summary.metrics)
    score, low, high = (summary.metrics[key] for key in (name, f"{name}_low", f"{name}_high"))
    out.print(f"{name.replace('_', ' ')} {score:.4f} (95% interval {low:.4f} to {high:.4f})")
    out.print(f"report  {one_line(summary.report)}")
    if summary.published:
        out.print(f"version {one_line(summary.published)}")


def print_predictions(results: Sequence[FilePrediction], classes: Sequence[str] = ()) -> None:
    """Print a table of images with their predictions, or with the error instead of the confidence.

    Columns for OOD images, sets of labels and abstention are only there if the model reports them.
    A model for several labels an image has all of them, with their probabilities, in one column.
    """
    from regraft_client.predict_files import decision_columns, format_decisions, format_flag

    predictions = [result.prediction for result in results if result.prediction]
    has_familiar = any(prediction.familiar is not None for prediction in predictions)
    more = decision_columns(results)
    several = "selected" in more
    more = [name for name in more if name != "selected"]
    names = [*(["familiar"] if has_familiar else []), *(name.replace("_", " ") for name in more)]
    rows = table("image", *(["labels"] if several else ["label", "confidence"]), *names)
    for result in results:
        found = result.prediction
        if found is None:
            add_row(rows, result.path, *([] if several else ["-"]), result.error)
            continue
        columns = [format_flag(found.familiar)] if has_familiar else []
        columns += format_decisions(found, more, classes)
        answer = [_labels(found, classes)] if several else [found.label, f"{found.confidence:.4f}"]
        add_row(rows, result.path, *answer, *columns)
    console().print(rows)


def _labels(found: Prediction, classes: Sequence[str]) -> str:
    """Return the selected labels with their probabilities, the most probable first."""
    probabilities = [
        probability
        for probability, selected in zip(found.probabilities, found.selected or (), strict=True)
        if selected
    ]
    named = zip(found.selected_names(classes), probabilities, strict=True)
    ordered = sorted(named, key=lambda pair: -pair[1])
    return ", ".join(f"{name} {probability:.4f}" for name, probability in ordered) or "none"


def print_classified(images: Sequence[ClassifiedImage]) -> None:
    """Print a table of images with their most probable classes."""
    rows = table("image", "class", "probability")
    for image in images:
        if image.error:
            add_row(rows, image.image, "-", image.error)
        for i, prediction in enumerate(image.predictions):
            add_row(rows, "" if i else image.image, prediction.imagenet_class.name,
                    f"{prediction.probability:.4f}")  # fmt: skip
        rows.add_section()
    console().print(rows)


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the findings about the machine, with a fix below each problem."""
    out = console()
    for finding in diagnosis.findings:
        out.print(f"{finding.state:7} {finding.name}: {one_line(finding.found)}")
        if finding.fix:
            out.print(f"        -> {finding.fix}")
    if diagnosis.usable:
        out.print("usable; next: regraft run digits, or regraft run FOLDER with your images")
    else:
        out.print("not usable; follow the arrows above, then run regraft doctor again")


def print_cleanup(cleanup: Cleanup, *, dry_run: bool) -> None:
    """Print what a cleanup removes, or would remove, and how much it frees."""
    for note in cleanup.notes:
        print_note(note)
    if cleanup.removed:
        rows = table("content", "size", "", numbers=(1,))
        for one in cleanup.removed:
            add_row(rows, one.name, f"{one.size / 1e6:,.1f} MB", one.reason)
        console().print(rows)
    freed = f"{cleanup.removed_bytes / 1e6:,.1f} MB in {len(cleanup.removed)} entries"
    kept = f"{cleanup.kept_bytes / 1e6:,.1f} MB in {cleanup.kept} entries"
    print(f"{'would free' if dry_run else 'freed'} {freed}; in use or recent: {kept}")


def table(*columns: str, title: str = "", numbers: Sequence[int] = ()) -> Table:
    """Return an empty table, in which long names are wrapped and never truncated.

    Args:
        columns: the headings.
        title: a line above the table.
        numbers: the indices of the columns that are aligned to the right.
    """
    made = Table(title=title or None, title_justify="left")
    for i, column in enumerate(columns):
        made.add_column(
            column,
            overflow="fold",
            no_wrap=i > 0 and i in numbers,
            justify="right" if i in numbers else "left",
        )
    return made


def add_row(rows: Table, *cells: str) -> None:
    """Add a row to a table, without the control characters that names of files may hold."""
    rows.add_row(*map(one_line, cells))


def console() -> Console:
    """Return the console for tables: as wide as the terminal, or as the tables in a pipe."""
    return SafeConsole(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def print_json(value: Any) -> None:
    """Print one JSON value, for `--json`."""
    print(printable_json(json.dumps(value, indent=2, ensure_ascii=False)))


def print_yaml(value: Any) -> None:
    """Print a value as YAML, with keys in their own order."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(value, sys.stdout)


@contextlib.contextmanager
def showing_steps() -> Iterator[Callable[[Sequence[Task]], None]]:
    """Yield a function that shows the steps of a run: a live table, or a line per change."""
    if sys.stderr.isatty():
        with Live(console=SafeConsole(stderr=True), auto_refresh=False) as live:
            yield lambda tasks: live.update(_task_table(tasks), refresh=True)
        return
    shown: dict[str, str] = {}

    def print_changes(tasks: Sequence[Task]) -> None:
        for task in tasks:
            parts = f"{task.name}: {task.state}", _duration_of(task), task.error
            line = " ".join(filter(None, parts))
            if shown.get(task.name) != line:
                shown[task.name] = line
                print_note(line)

    yield print_changes


def print_estimates(estimates: Sequence[Estimate]) -> None:
    """Print the estimated times and prices of runs, one column per number of nodes."""
    nodes = [str(one.plan.nodes) for one in estimates]
    rows = table("nodes", *nodes, numbers=range(1, len(nodes) + 1))
    for step in estimates[0].steps:
        rows.add_row(step, *(_duration(one.steps[step]) for one in estimates))
    rows.add_section()
    rows.add_row("total", *(_duration(one.total_s) for one in estimates))
    rows.add_row("if top gains nothing", *(_duration(one.without_gain_s) for one in estimates))
    rows.add_row("node hours", *(f"{one.node_hours:.1f}" for one in estimates))
    if any(one.cost for one in estimates):
        rows.add_row("price", *(f"{one.cost:,.2f}" for one in estimates))
    if any(one.failure for one in estimates):
        rows.add_row("to be resumed", *(f"{one.failure:.0%}" for one in estimates))
    rows.add_row("downloads", *(_gigabytes(one.downloads_gb) for one in estimates))
    rows.add_row("activations", *(_gigabytes(one.cut_gb) for one in estimates))
    rows.add_row("", *("cached" if one.cached else "not cached" for one in estimates))
    console().print(rows)


def _gigabytes(value: float) -> str:
    return f"{value:,.0f} GB" if value >= 100 else f"{value:.3g} GB"


def _duration(seconds: float) -> str:
    """Return a time in readable units."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 120:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{hours / 24:.1f} d"


def _task_table(tasks: Sequence[Task]) -> Table:
    rows = table("step", "state", "time", "", numbers=(2,))
    for task in tasks:
        add_row(rows, task.name, task.state, _duration_of(task), task.error)
    return rows


def _duration_of(task: Task) -> str:
    return "" if task.seconds is None else f"{task.seconds:.0f} s"


@contextlib.contextmanager
def progress_on_stderr() -> Iterator[None]:
    """Print the progress of a step to standard error, without its mark."""
    with contextlib.redirect_stdout(_WithoutMark()):
        yield


class _WithoutMark(io.TextIOBase):
    def write(self, text: str) -> int:
        sys.stderr.write(text.removeprefix(PROGRESS_MARK))
        return len(text)


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """Yield a function (done, total) that moves a progress bar; None if there is no terminal.

    The total is None if it is not known.
    """
    if not sys.stderr.isatty():
        yield None
        return
    with Progress(console=SafeConsole(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(what))
        yield lambda done, total: bar.update(task, completed=done, total=total)
