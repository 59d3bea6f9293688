"""A check as a file for the textfile collector of Prometheus' node exporter."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from regraft.drift.report import DriftReport
from regraft_core.formats.manifest_storage import write_text
from regraft_core.runtime.errors import InputError

_PREFIX = "regraft_drift"


def write_metrics(report: DriftReport, path: Path) -> None:
    """Write the file, so that a reader sees the old content or all of the new one.

    Raises:
        InputError: it cannot be written.
    """
    try:
        text = "".join(_lines(report, time.time()))
        write_text(path, text.encode("utf-8", "replace").decode())
    except OSError as error:
        raise InputError(f"--prometheus: cannot write {path}: {error.strerror}") from error


def _lines(report: DriftReport, now: float) -> Iterator[str]:
    """Yield the lines of the text format, version 0.0.4."""
    version = "" if report.version is None else str(report.version)
    labels = {"model": report.model, "version": version}
    tests = [({**labels, "test": test.name}, test) for test in report.tests]
    yield from _metric("alarm", "Whether a test found a drift.",
                       [(names, float(test.alarm)) for names, test in tests])  # fmt: skip
    yield from _metric("p_value", "P-value of a test, corrected for the number of tests.",
                       [(names, test.corrected) for names, test in tests])  # fmt: skip
    yield from _metric("statistic", "Statistic of a test.",
                       [(names, test.statistic) for names, test in tests])  # fmt: skip
    yield from _metric("images", "Images that were checked.", [(labels, float(report.images))])
    if report.unfamiliar is not None:
        yield from _metric("unfamiliar_ratio", "Fraction of the images below the OOD threshold.",
                           [(labels, report.unfamiliar)])  # fmt: skip
    yield from _metric("checked_timestamp_seconds", "Time of the check.", [(labels, now)])


def _metric(name: str, text: str, values: list[tuple[dict[str, str], float]]) -> Iterator[str]:
    yield f"# HELP {_PREFIX}_{name} {text}\n# TYPE {_PREFIX}_{name} gauge\n"
    for labels, value in values:
        pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"{_PREFIX}_{name}{{{pairs}}} {value!r}\n"


def _escaped(text: str) -> str:
    """Return the value of a label as the format requires it."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
