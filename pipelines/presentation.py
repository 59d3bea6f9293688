"""What a person reads on the terminal at the end of a command."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from pipelines.local import Summary


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
