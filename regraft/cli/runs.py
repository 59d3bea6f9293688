"""The commands that compare local runs: `runs` and `diff`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.options.json_flag import JsonFlag

if TYPE_CHECKING:
    from regraft.compare.run_difference import MetricPair, Pair, RunDifference
    from regraft.compare.run_list import RunRow

WIDTH = 80


def runs(
    folder: Annotated[
        Path, typer.Argument(help="Folder of runs, at most two levels deep, or of one run.")
    ] = Path("runs"),
    json: JsonFlag = False,
) -> None:
    """List the runs in a folder side by side: accuracy, cost, and the options that differ.

    Example: regraft runs runs
    """
    from regraft.cli.console_output import print_json
    from regraft.compare.run_list import list_runs

    rows = list_runs(folder)
    if json:
        print_json([row.as_json() for row in rows])
    else:
        _print_runs(rows)


def diff(
    first: Annotated[Path, typer.Argument(help="Folder of a run.")],
    second: Annotated[Path, typer.Argument(help="Folder of another run.")],
    json: JsonFlag = False,
) -> None:
    """Compare two runs: options, data, head and metrics.

    If both have the same test images, their accuracies, or with several labels an image their mAP,
    are compared image by image.

    Example: regraft diff runs/digits runs/digits-last
    """
    from regraft.cli.console_output import print_json
    from regraft.compare.run_difference import compare_runs

    found = compare_runs(first, second)
    if json:
        print_json(found.as_json())
    else:
        _print_difference(found)


def _print_runs(rows: Sequence[RunRow]) -> None:
    from regraft.cli.console_output import add_row, table

    shown = table("run", "verdict", "accuracy", "95% interval", "time", "MB", "ms",
                  numbers=(2, 4, 5, 6))  # fmt: skip
    for row in rows:
        interval = (
            "" if row.accuracy_low is None else f"{row.accuracy_low:.3f}-{row.accuracy_high:.3f}"
        )
        kind = " mAP" if row.metric == "mean_average_precision" else ""
        cells = (_number(row.accuracy, ".4f") + kind, interval, _time(row.seconds),
                 _number(row.model_mb, ".1f"), _number(row.latency_ms, ".1f"))  # fmt: skip
        add_row(shown, row.name, row.verdict, *cells)
    _console().print(shown)
    differing = [row for row in rows if row.options]
    if differing:
        options = table("run", "options that differ")
        for row in differing:
            values = ", ".join(f"{name} {_text(value)}" for name, value in row.options.items())
            add_row(options, row.name, values)
        _console().print(options)
    if len({row.dataset_digest for row in rows if row.dataset_digest}) > 1:
        _console().print("The datasets differ, so accuracies may not be comparable.")


def _print_difference(found: RunDifference) -> None:
    from components.evaluate.metrics.statistics import Comparison
    from regraft.cli.console_output import add_row, print_line, table

    print_line(f"first   {found.first}: {found.verdicts.first}")
    print_line(f"second  {found.second}: {found.verdicts.second}")
    for title, pairs in (("option", found.options), ("data", found.data), ("model", found.head)):
        _print_pairs(title, pairs)
    shown = table("metric", "first", "second", "difference", numbers=(1, 2, 3))
    for name, metric in found.metrics.items():
        add_row(shown, name.replace("_", " "), *_metric(metric))
    _console().print(shown)
    if found.paired is None:
        print_line(f"not paired: {found.unpaired}")
        return
    test = found.paired
    compared = "accuracy" if isinstance(test, Comparison) else "mAP"
    print_line(
        f"{compared} on the same {test.images} images: difference {test.difference:+.4f} "
        f"(95% {test.difference_low:+.4f} to {test.difference_high:+.4f})"
    )
    if not isinstance(test, Comparison):
        print_line(f"paired bootstrap p = {2 * min(test.p_worse, test.p_better):.3g}")
        return
    print_line(
        f"McNemar p = {test.p_two_sided:.3g}: only the second is correct for {test.wins}, only "
        f"the first for {test.losses}"
    )


def _print_pairs(title: str, pairs: Mapping[str, Pair]) -> None:
    from regraft.cli.console_output import add_row, print_line, table

    if not pairs:
        print_line(f"{title}: no difference")
        return
    shown = table(title, "first", "second")
    for name, pair in pairs.items():
        add_row(shown, name, _text(pair.first), _text(pair.second))
    _console().print(shown)


def _metric(metric: MetricPair) -> tuple[str, str, str]:
    values = [
        _number(value, ".4g") + ("" if ends is None else f" ({ends[0]:.3f}, {ends[1]:.3f})")
        for value, ends in (
            (metric.first, metric.first_interval), (metric.second, metric.second_interval)
        )
    ]  # fmt: skip
    if metric.first is None or metric.second is None:
        return values[0], values[1], ""
    return values[0], values[1], f"{metric.second - metric.first:+.4g}"


def _console() -> Any:
    """Return a console for tables of 80 columns, in a pipe too."""
    import sys

    from regraft.cli.console_output import SafeConsole

    return SafeConsole(width=None if sys.stdout.isatty() else WIDTH)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "default" if value is None else str(value)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
