"""Colors are for terminals only, and `NO_COLOR` turns them off."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

COMMAND = [sys.executable, "-m", "regraft", "gc", "--help"]
COLOR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])[;m]")
FORCED = ("FORCE_COLOR", "GITHUB_ACTIONS", "NO_COLOR", "PY_COLORS", "TTY_COMPATIBLE")


def on_a_terminal(**variables: str) -> bytes:
    """Return the output of the command on a terminal of 100 columns."""
    environment = {name: value for name, value in os.environ.items() if name not in FORCED}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "100"} | variables
    ours, theirs = pty.openpty()
    with subprocess.Popen(COMMAND, env=environment, stdout=theirs, stdin=theirs) as process:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 65536):
                written += part
        except OSError:  # Linux, when the process has closed the terminal
            pass
        finally:
            os.close(ours)
    assert process.returncode == 0
    return written


def test_a_terminal_gets_colors_unless_they_are_unwanted() -> None:
    assert COLOR.search(on_a_terminal())
    plain = on_a_terminal(NO_COLOR="1")
    assert b"Remove stored content" in plain and not COLOR.search(plain)


def test_a_pipe_gets_plain_text() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in FORCED}
    done = subprocess.run(COMMAND, env=environment, capture_output=True, timeout=60, check=True)
    assert b"Remove stored content" in done.stdout and b"\x1b" not in done.stdout
