"""Runs blocks of a page as its reader would, and compares what they print with what is shown.

Figures differ from machine to machine, so the comparison reads every number as `#`; `...` in a page
stands for anything, on a line of its own for any lines.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from regraft.cli.main import main
from serving.running.runner import free_port
from tests.docs.blocks import ROOT, Block, simple_commands

NUMBER = re.compile(r"(?<![A-Za-z_\d])\d[\d.,]*(e[-+]?\d+)?|\binf\b")
RULE = re.compile(r"[─━═-]{3,}")
STARTED = ("regraft serve",)


class Reader:
    """Someone who types a page's blocks in one folder, with servers that go on running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {"8500": str(free_port()), "8501": str(free_port())}
        self._servers: list[subprocess.Popen[str]] = []

    def python(self, source: str) -> str:
        """Run a Python block; return what it prints."""
        printed = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(printed):
            exec(compile(self._at_ports(source), "<block>", "exec"), {"__name__": "__main__"})
        return printed.getvalue()

    def command(self, command: str) -> tuple[int, str]:
        """Run a command; return its exit code and what it prints."""
        command = self._at_ports(command)
        if command.startswith(STARTED) and command.rstrip().endswith("&"):
            return self._start(command.rstrip(" &"))
        found = list(simple_commands(command))
        if len(found) == 1 and found[0][0] == "regraft" and not re.search(r"[|>$]", command):
            return self._in_process(found[0][1:])
        done = subprocess.run(
            ["bash", "-c", f'regraft() {{ "{sys.executable}" -m regraft "$@"; }}\n{command}'],
            cwd=self.folder, capture_output=True, text=True, timeout=600,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def stop(self) -> None:
        for server in self._servers:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)

    def _at_ports(self, text: str) -> str:
        for documented, free in self.ports.items():
            text = text.replace(f":{documented}", f":{free}")
        return text

    def _in_process(self, arguments: Sequence[str]) -> tuple[int, str]:
        """Run `regraft` in this process, where TensorFlow is loaded once."""
        printed, code = io.StringIO(), 0
        with (
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            try:
                main(list(arguments))
            except SystemExit as ended:
                code = int(ended.code or 0)
        return code, printed.getvalue()

    def _start(self, command: str) -> tuple[int, str]:
        """Start a server on free ports; return once it answers."""
        ports = ["--port", self.ports["8500"], "--rest-api-port", self.ports["8501"]]
        arguments = [*command.split()[1:], *ports]
        server = subprocess.Popen(
            [sys.executable, "-m", "regraft.cli.main", *arguments], cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self._servers.append(server)
        assert server.stdout is not None
        lines = []
        for line in server.stdout:
            lines.append(line)
            if line.startswith("REST"):
                break
        return (0 if lines else 1), "".join(lines)


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[Reader]:
    """Yield a reader in `folder`; its servers are stopped at the end."""
    reader = Reader(folder)
    try:
        yield reader
    finally:
        reader.stop()


def run_blocks(reader: Reader, blocks: Sequence[Block], marker: str) -> list[str]:
    """Run the blocks that carry `marker` in order; return the differences found."""
    found, printed = [], ""
    for block in blocks:
        if block.marker == "output":
            if printed:
                found += difference(block, block.text, printed)
            printed = ""
        elif block.marker != marker:
            printed = ""
        elif block.language == "python":
            printed = reader.python(block.text)
        elif block.language == "console":
            for command, shown in block.exchanges:
                code, output = reader.command(command)
                if code and "regraft: error:" not in shown:
                    found.append(f"{block.place}: {command}: exit code {code}\n{output}")
                found += difference(block, shown, output)
        else:
            code, output = reader.command(block.commands)
            found += [f"{block.place}: exit code {code}\n{output}"] if code else []
    return found


def difference(block: Block, shown: str, printed: str) -> list[str]:
    """Return a message where what a page shows is not what was printed."""
    if _pattern(shown).fullmatch(_normal(printed)):
        return []
    return [f"{block.place}: shown\n{_normal(shown)}printed\n{_normal(printed)}"]


def _normal(text: str) -> str:
    """Return a text whose numbers, spaces and rules are all alike."""
    lines = [RULE.sub("─", NUMBER.sub("#", line)).strip() for line in text.splitlines()]
    return "".join(re.sub(r"\s+", " ", line) + "\n" for line in lines if line)


def _pattern(shown: str) -> re.Pattern[str]:
    """Return the pattern of normal text, each line ended by a line feed."""
    lines = (re.escape(line).replace(r"\.\.\.", ".*") for line in _normal(shown).splitlines())
    return re.compile("".join(r"(?:.*\n)*" if line == ".*" else line + r"\n" for line in lines))
