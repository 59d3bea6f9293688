"""Cron expressions for Kubeflow: accepted and refused ones."""

from __future__ import annotations

import pytest

from pipelines.cluster.cron import kfp_cron
from regraft_core.runtime.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("30 0 3 ? * MON-FRI", "30 0 3 ? * MON-FRI"),
        ("*/15 8-18 1,15 jan-mar 0", "0 */15 8-18 1,15 jan-mar 0"),
        (" @daily ", "@daily"),
        ("@every 1h30m", "@every 1h30m"),
    ],
)
def test_five_fields_become_six(text: str, expected: str) -> None:
    assert kfp_cron(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected five fields"),
        ("daily", "expected five fields"),
        ("@every", "expected five fields"),
        ("@every 3 h", "expected five fields"),
        ("* * * *", "expected five fields"),
        ("* * * * * * *", "expected five fields"),
        ("60 * * * *", "expected a value of 0 to 59 as minute, got '60'"),
        ("* 24 * * *", "0 to 23 as hour"),
        ("* * 0 * *", "1 to 31 as day of the month"),
        ("* * * 13 *", "1 to 12 as month"),
        ("* * * foo *", "as month"),
        ("* * * * 7", "0 to 6 as day of the week"),
        ("* * * * fri-mon", "as day of the week"),
        ("*/0 * * * *", "as minute"),
        ("5-1 * * * *", "as minute"),
        ("1-2-3 * * * *", "as minute"),
        ("-1 * * * *", "as minute"),
        ("1, * * * *", "as minute"),
        ("² * * * *", "as minute"),
    ],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kfp_cron(text)
