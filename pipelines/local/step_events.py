"""The events that the steps of a local run write, read while they run.

`regraft_core.runtime.step_reports` writes them. What steps print goes to the log and is never
parsed.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

POLL_S = 0.1
PATTERN = "events-*.jsonl"


class StepEvents:
    """What the steps have reported so far.

    Args:
        line: gets each line of progress.
        live: gets the text of a counter each second, or is None; then `line` gets it each minute.
    """

    def __init__(self, line: Callable[[str], None], live: Callable[[str], None] | None) -> None:
        self._line, self._live = line, live
        self._running: Counter[str] = Counter()
        self.error: tuple[int, str] | None = None
        self.timings: dict[str, float] = {}

    @property
    def unfinished(self) -> list[str]:
        """The steps that started and reported neither their end nor an error."""
        return sorted(self._running.elements())

    def add(self, event: dict[str, Any]) -> None:
        """Take one event into account, then show it."""
        match event:
            case {"event": "start", "step": str(step)}:
                self._running[step] += 1
                self._line(f"{step}: start")
            case {"event": "done", "step": str(step), "seconds": int() | float() as seconds}:
                self._running[step] -= 1
                self.timings[step] = self.timings.get(step, 0.0) + seconds
                self._line(f"{step}: done in {seconds:.1f} s")
            case {"event": "error", "step": str(step), "code": int(code), "message": str(message)}:
                self._running[step] -= 1
                self.error = self.error or (code or 1, f"{step}: {message}")
            case {"event": "progress", "text": str(text)}:
                self._line(text)
            case {"event": "live", "text": str(text)} if self._live:
                self._live(text)
            case {"event": "count", "text": str(text)} if not self._live:
                self._line(text)


@contextlib.contextmanager
def reading_events(folder: Path, events: StepEvents) -> Iterator[Path]:
    """Yield a new file in `folder` for the steps to write to, and read it until the end.

    Files that an interrupted run left are removed; a step of that run that is still alive then
    fails, because its file is gone.
    """
    for old in folder.glob(PATTERN):
        old.unlink(missing_ok=True)
    prefix, suffix = PATTERN.split("*")
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=suffix)
    os.close(descriptor)
    path, ended = Path(name), threading.Event()
    with open(path, "rb") as file:

        def read() -> None:
            while not ended.wait(POLL_S):
                _read_new(file, events)

        thread = threading.Thread(target=read, name="step events", daemon=True)
        thread.start()
        try:
            yield path
        finally:
            ended.set()
            thread.join()
            _read_new(file, events)
            path.unlink(missing_ok=True)


def _read_new(file: BinaryIO, events: StepEvents) -> None:
    """Add the whole lines that were appended since the last call."""
    while (line := file.readline()).endswith(b"\n"):
        with contextlib.suppress(ValueError):
            events.add(json.loads(line))
    file.seek(-len(line), os.SEEK_CUR)
