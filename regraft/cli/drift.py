"""`regraft drift`: compares requests or images with what a model was validated on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options.json_flag import JsonFlag
from regraft_core.runtime.errors import DriftError, InputError

if TYPE_CHECKING:
    from regraft.drift.report import DriftReport

MIN_SIGNIFICANCE, MAX_SIGNIFICANCE = 0.001, 0.2


def drift(
    model: Annotated[
        str, typer.Argument(help="Folder of a run, of a published model or of a version, or a URI.")
    ],
    source: Annotated[Path, typer.Argument(help="Folder of a request log, or of images.")],
    significance: Annotated[
        float, typer.Option(help="Rate of false alarms of a whole check, 0.001 to 0.2.")
    ] = 0.01,
    max_images: Annotated[
        int,
        typer.Option(
            min=50, max=5000, help="Images to check: the newest of a log, or some of a folder."
        ),
    ] = 1000,
    name: Annotated[
        str, typer.Option(help="Name of the model in the log; empty uses that of its folder.")
    ] = "",
    html: Annotated[Path | None, typer.Option(help="HTML file to write the page to.")] = None,
    prometheus: Annotated[
        Path | None,
        typer.Option(help="File to write metrics to, for the textfile collector of Prometheus."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Test whether the images that a model receives have changed since its validation.

    Exit code 3 means drift: a test alarms.

    Example: regraft drift runs/digits requests --html drift.html
    """
    from regraft.cli.console_output import print_json
    from regraft.drift.page import write_page
    from regraft.drift.prometheus import write_metrics
    from regraft.drift.report import DriftOptions, measure_drift
    from regraft_core.drift.check import CheckOptions

    if not MIN_SIGNIFICANCE <= significance <= MAX_SIGNIFICANCE:
        raise InputError(f"--significance: expected {MIN_SIGNIFICANCE} to {MAX_SIGNIFICANCE}, got "
                         f"{significance:g}")  # fmt: skip
    options = DriftOptions(name, max_images, CheckOptions(significance))
    check = measure_drift(model, source, options)
    report = check.report
    if html is not None:
        write_page(check, html)
    if prometheus is not None:
        write_metrics(report, prometheus)
    if json:
        print_json(report.as_json())
    else:
        _print_report(report)
    if report.drift:
        alarms = ", ".join(test.name for test in report.tests if test.alarm)
        raise DriftError(f"drift of {report.model}: {alarms}")


def _print_report(report: DriftReport) -> None:
    from regraft.cli.console_output import add_row, console, print_line, table
    from regraft.drift.page import STATISTICS, TITLES

    version = "" if report.version is None else f" version {report.version}"
    print_line(
        f"{report.model}{version}: {report.images} images, compared with "
        f"{report.reference_images} of validation"
    )
    rows = table("test", "statistic", "", "p", "", numbers=(2, 3))
    for test in report.tests:
        add_row(rows, TITLES[test.name], STATISTICS[test.name], f"{test.statistic:.3g}",
                f"{test.corrected:.2g}", "alarm" if test.alarm else "")  # fmt: skip
    console().print(rows)
    for reason, count in report.excluded.items():
        print_line(f"not counted: {count} {reason}")
    if report.lost_lines:
        print_line(f"lost: the last line of {report.lost_lines} of the log's files is incomplete")
    print_line("drift" if report.drift else "no drift")
