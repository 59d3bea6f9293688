"""Reports of steps: lines on standard output, and events in a file if one is named."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from regraft_core.runtime import step_reports
from regraft_core.runtime.errors import InputError, ParityError
from regraft_core.runtime.step_reports import (
    EVENTS_VARIABLE,
    ProgressReporter,
    ReportRelay,
    describe_count,
    log_progress,
    run_step,
)

FORGED = '[regraft:error:0] ok\n{"event": "done", "step": "x", "seconds": 1}\x1b[2J'
CLEAN = '[regraft:error:0] ok {"event": "done", "step": "x", "seconds": 1} [2J'


@pytest.fixture
def events_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that steps write events to."""
    path = tmp_path / "events.jsonl"
    path.touch()
    monkeypatch.setenv(EVENTS_VARIABLE, str(path))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_a_step_reports_its_start_progress_and_end(
    events_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_step("ingest"):
        log_progress(f"class {FORGED}")
    start, progress, done = read(events_file)
    assert start == {"event": "start", "step": "ingest"}
    assert progress == {"event": "progress", "text": f"class {CLEAN}"}
    assert (done["event"], done["step"]) == ("done", "ingest")
    assert 0 <= done["seconds"] < 5
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["[regraft] ingest: start", f"[regraft] class {CLEAN}"]
    assert lines[2].startswith("[regraft] ingest: done in ")
    assert len(lines) == 3


@pytest.mark.parametrize(("kind", "code"), [(InputError, 2), (ParityError, 1)])
def test_an_error_is_one_event_and_one_line(
    events_file: Path, capsys: pytest.CaptureFixture[str], kind: type[Exception], code: int
) -> None:
    with pytest.raises(SystemExit) as ended, run_step("verify"):
        raise kind(f"path {FORGED}")
    assert ended.value.code == code
    assert read(events_file)[1:] == [
        {"event": "error", "step": "verify", "code": code, "message": f"path {CLEAN}",
         "may_pass": code == 1}
    ]  # fmt: skip
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"[regraft:error:{code}] verify: path {CLEAN}"
    ]


def test_a_fault_of_the_program_is_reported_and_raised(
    events_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ZeroDivisionError), run_step("export"):
        _ = 1 / 0
    _, error = read(events_file)
    assert (error["event"], error["step"], error["code"]) == ("error", "export", 1)
    assert error["message"].startswith("ZeroDivisionError: division by zero")
    assert error["may_pass"]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "[regraft:error:1] export: ZeroDivisionError: division by zero"


def test_without_a_file_only_lines_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(EVENTS_VARIABLE, raising=False)
    with run_step("ingest"):
        pass
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_counter_reports_each_second_as_event_and_each_minute_as_line(
    events_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([0.0, 0.5, 1.1, 1.9, 61.0])
    monkeypatch.setattr(step_reports.time, "perf_counter", lambda: next(times))
    reporter = ProgressReporter("view 1/1", 90)
    for done in (10, 20, 30, 40):
        reporter(done)
    first = "20 of 90 (18.2 per second, about 4 s left)"
    last = "40 of 90 (0.7 per second, about 76 s left)"
    assert read(events_file) == [
        {"event": "live", "text": f"view 1/1: {first}"},
        {"event": "live", "text": f"view 1/1: {last}"},
        {"event": "count", "text": f"view 1/1: {last}"},
    ]
    assert capsys.readouterr().out.splitlines() == [f"[regraft] view 1/1: {last}"]


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (0, 90, 2.0, "0 of 90 (0.0 per second)"),
        (10, None, 2.0, "10 (5.0 per second)"),
        (10, 90, 2.0, "10 of 90 (5.0 per second, about 16 s left)"),
        (89, 90, 2.0, "89 of 90 (44.5 per second, about 1 s left)"),
        (90, 90, 2.0, "90 of 90 (45.0 per second)"),
        (1, 101, 1.0, "1 of 101 (1.0 per second, about 2 min left)"),
        (1, 10_801, 1.0, "1 of 10801 (1.0 per second, about 3 h left)"),
    ],
)
def test_the_time_that_is_left_follows_the_speed(
    done: int, total: int | None, seconds: float, text: str
) -> None:
    assert describe_count(done, total, seconds) == text


def test_threads_count_together(events_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_reports, "LIVE_EVERY_S", 0.0)
    reporter = ProgressReporter("fits", 400)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(reporter.advance, [1] * 400))
    counts = [event["text"].split()[1] for event in read(events_file)]
    assert counts == [str(count) for count in range(1, 401)]


def _report_many(number: int) -> None:
    with run_step(f"step{number}"):
        for count in range(200):
            log_progress(f"{number} {count} {'x' * 500}")


def test_parallel_steps_share_the_file(events_file: Path) -> None:
    processes = [
        multiprocessing.get_context("spawn").Process(target=_report_many, args=(number,))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    events = read(events_file)
    assert len(events) == 4 * 202
    for number in range(4):
        own = [e["text"].split()[1] for e in events if e.get("text", "").startswith(f"{number} ")]
        assert own == [str(count) for count in range(200)]


def test_a_relay_reports_what_another_process_reports(
    events_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Each line once, and only when it is complete."""
    theirs = tmp_path / "theirs"
    relay = ReportRelay(theirs)
    relay()
    theirs.touch()
    with monkeypatch.context() as patch:
        patch.setenv(EVENTS_VARIABLE, str(theirs))
        log_progress("one")
    capsys.readouterr()
    relay()
    for text in ('{"event": "live", "text": "2 of 4"}\n{"event": "prog', 'ress", "text": "two"}\n'):
        with open(theirs, "a") as file:
            file.write(text)
        relay()
        relay()
    assert capsys.readouterr().out == "[regraft] one\n[regraft] two\n"
    assert [tuple(event.values()) for event in read(events_file)] == [
        ("progress", "one"), ("live", "2 of 4"), ("progress", "two")
    ]  # fmt: skip
