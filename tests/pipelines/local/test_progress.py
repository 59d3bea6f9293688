"""Progress: live on a terminal, plain lines elsewhere, and a log without what was live."""

from __future__ import annotations

import io

import pytest

from pipelines.local.progress import ERASE, Progress
from pipelines.local.run import _LogFilter
from regraft_core.runtime import step


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_live_line_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "20")
    progress = Progress()
    assert progress.live
    progress.now("top epoch 1/8: 32 of 1170 (9 a second)")
    progress.line("top epoch 1/8")
    progress.end()
    assert terminal.getvalue() == f"{ERASE}top epoch 1/8: 32 o{ERASE}top epoch 1/8\n"


def test_no_terminal_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    assert not progress.live
    progress.line("train_head: start")
    progress.end()
    assert capsys.readouterr().err == "train_head: start\n"


def test_the_log_holds_all_but_what_was_live() -> None:
    log, lines, live = io.StringIO(), list[str](), list[str]()
    captured = _LogFilter(log, lines.append, live.append)  # type: ignore[arg-type]
    for text in ("note\n    [regraft:live] 3 of 9\n", "    [regraft] do", "ne\nTrace", "back"):
        captured.write(text)
    captured.finish()
    assert (lines, live) == (["done"], ["3 of 9"])
    assert log.getvalue() == "note\n    [regraft] done\nTraceback"


@pytest.mark.parametrize(
    ("variable", "seconds", "expected"),
    [
        ("1", [0.5, 1.1, 1.9, 2.2], ["[regraft:live] view 1/1: 20 of 90 (18.2 a second)",
                                     "[regraft:live] view 1/1: 40 of 90 (18.2 a second)"]),
        ("", [0.5, 59.0, 61.0, 90.0], ["[regraft] view 1/1: 30 of 90 (0.5 a second)"]),
    ],
)  # fmt: skip
def test_a_pulse_is_live_to_a_person_and_rare_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    variable: str, seconds: list[float], expected: list[str],
) -> None:  # fmt: skip
    times = iter([0.0, *seconds])
    monkeypatch.setattr("regraft_core.runtime.step.time.perf_counter", lambda: next(times))
    monkeypatch.setenv(step.LIVE_VARIABLE, variable)
    pulse = step.ProgressReporter("view 1/1", 90)
    for done in (10, 20, 30, 40):
        pulse(done)
    assert capsys.readouterr().out.splitlines() == expected
