"""Runs the blocks of a page as its reader would, and compares the output with the page.

Numbers differ between machines, so every number is compared as `#`, unless the block's marker says
`exact`. `...` in a page matches anything in its line, and on its own line any number of lines.
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
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from docs.results.values import ROOT
from regraft.cli.main import main
from serving.running.runner import free_port
from tests.docs.blocks import Block, simple_commands

# A slower machine needs minutes where another needs seconds.
DURATION = re.compile(r"# (?:min|h)\b")
NUMBER = re.compile(r"(?<![A-Za-z_\d])\d[\d.,]*(e[-+]?\d+)?|\binf\b")
# On which side of a threshold an image lies depends on the processor, as the last digits do.
SIDE = re.compile(r"(?<=familiar: )(True|False)|(?<=│ )(yes|no)(?= +│)")
RULE = re.compile(r"[─━═-]{3,}")
SERVERS = ("regraft serve",)


@dataclass(frozen=True)
class Exchange:
    """What a page shows after a command or a Python block, and what was printed."""

    block: Block
    command: str
    shown: str
    printed: str
    code: int = 0
    exact: bool = False

    @property
    def differences(self) -> list[str]:
        """One message for an unexpected exit code, and one if the output does not match."""
        found = []
        if self.code and "regraft: error:" not in self.shown:
            found.append(f"{self.block.location}: {self.command}: exit code {self.code}")
        if not matches(self.shown, self.printed, self.exact):
            expected, printed = (normalize(text, self.exact) for text in (self.shown, self.printed))
            found.append(f"{self.block.location}: expected\n{expected}printed\n{printed}")
        return found


class Reader:
    """A reader who types a page's blocks in one folder; servers keep running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {"8500": str(free_port()), "8501": str(free_port())}
        self._servers: list[subprocess.Popen[str]] = []

    def python(self, source: str) -> str:
        """Run a Python block; return its output."""
        output = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(output):
            exec(
                compile(self._with_free_ports(source), "<block>", "exec"), {"__name__": "__main__"}
            )
        return self._as_documented(output.getvalue())

    def command(self, command: str) -> tuple[int, str]:
        """Run a command; return its exit code and its output."""
        code, output = self._run(self._with_free_ports(command))
        return code, self._as_documented(output)

    def stop(self) -> None:
        """Stop the servers, so that others can use their ports."""
        while self._servers:
            server = self._servers.pop()
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)

    def _run(self, command: str) -> tuple[int, str]:
        if command.startswith(SERVERS) and command.rstrip().endswith("&"):
            return self._start(command.rstrip(" &"))
        found = list(simple_commands(command))
        if len(found) == 1 and found[0][0] == "regraft" and not re.search(r"[|>$]", command):
            return self._run_in_process(found[0][1:])
        program = (
            f'python() {{ "{sys.executable}" "$@"; }}\nregraft() {{ python -m regraft "$@"; }}'
        )
        done = subprocess.run(
            ["bash", "-c", f"{program}\n{command}"],
            cwd=self.folder, capture_output=True, text=True, timeout=600,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def _with_free_ports(self, text: str) -> str:
        for documented, free in self.ports.items():
            text = text.replace(f":{documented}", f":{free}")
        return text

    def _as_documented(self, output: str) -> str:
        """Return an output with the ports of the page, and `...` for the reader's folder."""
        for documented, free in self.ports.items():
            output = output.replace(f":{free}", f":{documented}")
        return output.replace(str(self.folder), "...")

    def _run_in_process(self, arguments: Sequence[str]) -> tuple[int, str]:
        """Run `regraft` in this process, which loads TensorFlow only once."""
        output, code = io.StringIO(), 0
        with (
            # The command changes both for the processes that it starts.
            mock.patch.dict(os.environ),
            mock.patch.object(sys, "path", sys.path[:]),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
        ):
            try:
                main(list(arguments))
            except SystemExit as error:
                code = int(error.code or 0)
        return code, output.getvalue()

    def _start(self, command: str) -> tuple[int, str]:
        """Start a server on free ports; return when it is ready."""
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


def run_blocks(reader: Reader, blocks: Sequence[Block], *, long: bool) -> Iterator[Exchange]:
    """Run the blocks that are marked to run, in order; yield what they print."""
    markers = ("run long",) if long else ("run", "run exact")
    source: Block | None = None
    printed = ""
    for block in blocks:
        if block.marker == "output" and source is not None:
            yield Exchange(block, "", block.text, printed, exact=source.is_exact)
        source = None
        if block.marker not in markers:
            continue
        if block.language == "python":
            source, printed = block, reader.python(block.text)
        elif block.language == "console":
            for command, shown in block.exchanges:
                code, output = reader.command(command)
                yield Exchange(block, command, shown, output, code, block.is_exact)
        else:
            code, output = reader.command(block.commands)
            yield Exchange(block, block.commands, output, output, code)


def matches(shown: str, printed: str, exact: bool = False) -> bool:
    """Return whether an output is what a page shows."""
    return bool(_pattern(shown, exact).fullmatch(normalize(printed, exact)))


def normalize(text: str, exact: bool = False) -> str:
    """Return a text with equal spaces and rules and, unless `exact`, equal numbers and sides."""
    numbered = text if exact else DURATION.sub("# s", NUMBER.sub("#", SIDE.sub("#", text)))
    lines = [RULE.sub("─", line).strip() for line in numbered.splitlines()]
    return "".join(re.sub(r"\s+", " ", line) + "\n" for line in lines if line)


def _pattern(shown: str, exact: bool) -> re.Pattern[str]:
    """Return the pattern of a normalized output, each line ended by a line feed."""
    normal = normalize(shown, exact).splitlines()
    lines = (re.escape(line).replace(r"\.\.\.", ".*") for line in normal)
    return re.compile("".join(r"(?:.*\n)*" if line == ".*" else line + r"\n" for line in lines))
