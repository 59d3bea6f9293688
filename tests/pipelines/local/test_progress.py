"""Progress: the last line is live on a terminal, and all lines are plain elsewhere."""

from __future__ import annotations

import io

import pytest

from pipelines.local.progress import ERASE, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_live_line_is_replaced_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "20")
    progress = Progress()
    assert progress.is_live
    progress.live("top epoch 1/8: 32 of 1170 (9 per second)")
    progress.line("top epoch 1/8")
    progress.close()
    assert terminal.getvalue() == f"{ERASE}top epoch 1/8: 32 o{ERASE}top epoch 1/8\n"


def test_no_terminal_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    assert not progress.is_live
    progress.line("train_head: start")
    progress.close()
    assert capsys.readouterr().err == "train_head: start\n"


def test_escape_sequences_do_not_reach_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    progress = Progress()
    progress.line("class \x1b[31mred\x1b[0m\nsecond")
    progress.live("\x1b]0;title\x07")
    assert terminal.getvalue() == f"class red second\n{ERASE}]0;title"
