"""The digest of an evaluation, by which a run decides whether to export the model again."""

from __future__ import annotations

from collections.abc import Callable

from components.evaluate.report.report_data import ReportData


def test_another_threshold_is_another_evaluation(report_of: Callable[..., ReportData]) -> None:
    first, again, other = (
        report_of(in_distribution_fraction=fraction).evaluation for fraction in (0.95, 0.95, 0.8)
    )
    assert first.digest == again.digest
    assert first.checks == other.checks and first.details["ood"] != other.details["ood"]
    assert first.digest != other.digest
