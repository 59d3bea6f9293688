"""`regraft report` for a request log: the shadow compared with the version that answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regraft.shadow_report import ShadowReport, compare_versions


def report_request_log(folder: Path, labels: Path | None, json: bool) -> None:
    """Print the comparison of the versions in a request log."""
    from regraft.cli.console_output import print_json, print_line

    reports = compare_versions(folder, labels)
    if json:
        print_json([_without_nan(report.as_json()) for report in reports])
        return
    for report in reports:
        for line in report_lines(report):
            print_line("".join(c if c.isprintable() else " " for c in line))


def report_lines(report: ShadowReport) -> list[str]:
    """Return the lines of a report."""
    lines = [
        f"{report.model}: version {report.version}, shadow version {report.shadow}",
        f"images     {report.images} ({report.invalid} invalid, {report.sent} with repetitions)",
    ]
    if not report.images:
        return lines
    lines.append(
        f"agreement  {report.agreement:.4f} "
        f"(95% interval {report.agreement_low:.4f} to {report.agreement_high:.4f})"
    )
    for index, one in enumerate(report.disagreements):
        start = "different  " if index == 0 else " " * 11
        lines.append(f"{start}{one.images} images: {one.predicted}, shadow {one.shadow}")
    if report.labeled is not None:
        test = report.labeled
        lines.append(f"labeled    {test.images} images")
        if test.images:
            lines += [
                f"accuracy   {test.champion_accuracy:.4f}, shadow {test.accuracy:.4f} (difference "
                f"{test.difference:+.4f}, 95% interval {test.difference_low:+.4f} to "
                f"{test.difference_high:+.4f})",
                f"McNemar    p = {test.p_two_sided:.4g} (only the shadow is correct: {test.wins}, "
                f"only version {report.version}: {test.losses})",
            ]
    return lines


def _without_nan(value: Any) -> Any:
    """Return values of JSON in which numbers that are not finite are null."""
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and value != value else value
