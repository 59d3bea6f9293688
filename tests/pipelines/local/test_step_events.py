"""Events of steps, read by the local run while they are written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.local.step_events import StepEvents, reading_events
from regraft_core.runtime.step_reports import EVENTS_VARIABLE

STEP = """
import os, signal, sys, time
from regraft_core.runtime.step_reports import log_progress, run_step
with run_step(sys.argv[1]):
    log_progress("at work")
    if "kill" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def events(lines: list[str]) -> StepEvents:
    return StepEvents(lines.append, None)


def append(path: Path, *values: object) -> None:
    with open(path, "a", encoding="utf-8") as file:
        for value in values:
            file.write(value if isinstance(value, str) else json.dumps(value) + "\n")


def test_times_of_a_step_are_summed_and_its_end_is_noticed(
    events: StepEvents, lines: list[str], tmp_path: Path
) -> None:
    start, done = {"event": "start", "step": "train"}, {"event": "done", "step": "train"}
    with reading_events(tmp_path, events) as path:
        append(path, start, start, done | {"seconds": 1.5}, {"event": "progress", "text": "half"})
    assert events.unfinished == ["train"]
    assert events.timings == {"train": 1.5}
    assert events.error is None
    assert lines == ["train: start", "train: start", "train: done in 1.5 s", "half"]
    assert list(tmp_path.iterdir()) == []


def test_events_are_shown_while_the_step_runs(
    events: StepEvents, lines: list[str], tmp_path: Path
) -> None:
    with reading_events(tmp_path, events) as path:
        append(path, '{"event": "progress", ', '"text": "now"}\n', '{"event": "pro')
        deadline = time.monotonic() + 10
        while not lines and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lines == ["now"]
        append(path, 'gress", "text": "later"}\n')
    assert lines == ["now", "later"]


def test_the_first_error_counts_and_never_exits_with_0(events: StepEvents, tmp_path: Path) -> None:
    error = {"event": "error", "step": "ingest", "message": "no images"}
    with reading_events(tmp_path, events) as path:
        append(path, error | {"code": 0}, error | {"code": 2, "message": "other"})
    assert events.error == (1, "ingest: no images")


@pytest.mark.parametrize(
    "text",
    [
        "not JSON\n",
        "[]\n",
        "1\n",
        '{"event": "done", "step": "train"}\n',
        '{"event": "done", "step": "train", "seconds": "soon"}\n',
        '{"event": "error", "step": "train", "code": "0", "message": "x"}\n',
        '{"event": "other", "step": "train"}\n',
        '{"event": "done", "step": "train", "seconds": 1}',  # no end of the line
        "\n\xff\n",
    ],
)
def test_other_lines_are_ignored(
    events: StepEvents, lines: list[str], tmp_path: Path, text: str
) -> None:
    with reading_events(tmp_path, events) as path:
        append(path, {"event": "start", "step": "train"}, text)
    assert (events.unfinished, events.timings, events.error) == (["train"], {}, None)
    assert lines == ["train: start"]


def test_counters_are_live_on_a_terminal_and_lines_elsewhere(tmp_path: Path) -> None:
    counters = {"event": "live", "text": "second"}, {"event": "count", "text": "minute"}
    for has_terminal in (True, False):
        lines, live = list[str](), list[str]()
        events = StepEvents(lines.append, live.append if has_terminal else None)
        with reading_events(tmp_path, events) as path:
            append(path, *counters)
        assert (live, lines) == ((["second"], []) if has_terminal else ([], ["minute"]))


def test_a_killed_step_has_started_and_is_never_done(
    events: StepEvents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reading_events(tmp_path, events) as path:
        monkeypatch.setenv(EVENTS_VARIABLE, str(path))
        steps = [
            subprocess.Popen([sys.executable, "-c", STEP, *arguments], stdout=subprocess.DEVNULL)
            for arguments in (["fine_tune"], ["fine_tune", "kill"], ["train_head"])
        ]
        codes = [step.wait(timeout=120) for step in steps]
    assert codes == [0, -signal.SIGKILL, 0]
    assert events.unfinished == ["fine_tune"]
    assert set(events.timings) == {"fine_tune", "train_head"}


def test_a_file_of_an_interrupted_run_is_removed(events: StepEvents, tmp_path: Path) -> None:
    old = tmp_path / "events-old.jsonl"
    append(old, {"event": "done", "step": "train", "seconds": 1})
    with reading_events(tmp_path, events) as path:
        assert not old.exists()
        assert path.exists()
    assert events.timings == {}
