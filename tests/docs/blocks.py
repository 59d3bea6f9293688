"""Reads the code blocks of Markdown pages, and the markers for the tests.

A marker is a comment on the line before a block:

    <!-- test: run -->             run it by default
    <!-- test: run exact -->       the same, and compare the numbers of its output too
    <!-- test: run long -->        run it in the long tests, in the order of the page
    <!-- test: output -->          the output of the Python block before it
    <!-- test: recipe -->          YAML that must be a recipe
    <!-- test: unchecked, WHY -->  do not check it, for this reason

The output in a console block must match the output of its commands. A block without a marker is
checked but not run; see `test_commands.py`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from docs.results.pages import pages
from docs.results.values import ROOT

MARKER = re.compile(r"<!--\s*test:\s*(?P<words>.*?)\s*-->", re.DOTALL)
MARKERS = ("run", "run exact", "run long", "output", "recipe")
SHELL, PYTHON, CONSOLE = ("sh", "bash", "shell"), ("python",), ("console",)
TEXT = ("", "text", "json", "yaml", "docker", "none", "{toctree}", "{include}")
REDIRECTIONS = frozenset({">", ">>", "<", ">&"})
ENDS = frozenset({"&", "&&", "|", "||", ";", "(", ")"})
OPERATORS = REDIRECTIONS | ENDS


@dataclass(frozen=True)
class Block:
    """One code block: its page and first line, its language, its text, and its marker's words."""

    page: str
    line: int
    language: str
    text: str
    marker: str

    @property
    def location(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_shell(self) -> bool:
        return self.language in SHELL or self.language in CONSOLE

    @property
    def is_exact(self) -> bool:
        """Whether the numbers of its output are compared too."""
        return self.marker == "run exact"

    @property
    def commands(self) -> str:
        """The commands: all lines, or those after `$ ` in a console block."""
        if self.language not in CONSOLE:
            return self.text
        return "\n".join(command for command, _ in self.exchanges)

    @property
    def exchanges(self) -> list[tuple[str, str]]:
        """The commands of a console block, each with its output."""
        exchanges: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                exchanges.append((line[2:], []))
            elif exchanges and line.startswith("> ") and not exchanges[-1][1]:
                exchanges[-1] = (f"{exchanges[-1][0]}\n{line[2:]}", [])
            elif exchanges:
                exchanges[-1][1].append(line)
        return [(command, "\n".join(lines)) for command, lines in exchanges]


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page, fenced or indented, in order."""
    blocks, marker = [], ""
    name = str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block" and (match := MARKER.search(token.content)):
            marker = match["words"]
        elif token.type in ("fence", "code_block"):
            is_fence = token.type == "fence"
            language = (token.info.split() or [""])[0] if is_fence else _guess(token.content)
            line = (token.map or [0])[0] + 1
            blocks.append(Block(name, line, language, token.content, marker))
            marker = ""
    return blocks


def all_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks_of(page)]


def pages_with(*markers: str) -> list[Path]:
    """Return the pages with a block that has one of the markers, in order."""
    return [page for page in pages() if any(b.marker in markers for b in blocks_of(page))]


def _guess(text: str) -> str:
    """Return the language of an indented block, which has no info string."""
    return "python" if re.match(r"(from|import) \w", text) else "sh"


def simple_commands(script: str) -> Iterator[list[str]]:
    """Yield the words of each simple command, without leading assignments and redirections."""
    for line in re.sub(r"\\\n", " ", script).splitlines():
        reader = shlex.shlex(line, posix=True, punctuation_chars=True)
        reader.whitespace_split = True
        words: list[str] = []
        before = ""
        for word in [*reader, ";"]:
            redirected, before = before in REDIRECTIONS, word
            if word not in OPERATORS:
                words += [] if redirected else [word]
            if word not in ENDS:
                continue
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            if words:
                yield words
            words = []
