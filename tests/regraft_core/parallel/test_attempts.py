"""Processes that start again together: as long as they save something new."""

from __future__ import annotations

import pytest

from regraft_core.parallel.attempts import Attempts
from regraft_core.runtime.errors import RegraftError


def test_three_attempts_without_progress_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    attempts = Attempts("fine_tune top", dict)
    attempts.lose("killed")
    attempts.lose("killed")
    assert capsys.readouterr().out == 2 * (
        "[regraft] fine_tune top: a process was lost (killed); all start again from the last "
        "checkpoint\n"
    )
    message = r"^fine_tune top: processes were lost in 3 attempts without progress \(killed\); .*"
    with pytest.raises(RegraftError, match=message):
        attempts.lose("killed")


def test_progress_allows_more_attempts() -> None:
    saved = {"state": 0}
    attempts = Attempts("fine_tune full", saved.copy)
    for epoch in (0, 0, 1, 1, 1, 2, 2, 2):
        saved["state"] = epoch
        attempts.lose("killed")
    with pytest.raises(RegraftError):
        attempts.lose("killed")
