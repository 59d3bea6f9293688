"""Reads the code blocks of Markdown pages, and the markers that say what the tests do with them.

A marker is a comment on the line before a block:

    <!-- test: run -->             run it by default
    <!-- test: run long -->        run it in the long tests, in the order of the page
    <!-- test: output -->          what the Python block before it prints
    <!-- test: recipe -->          YAML that must be a recipe
    <!-- test: unchecked, WHY -->  leave it alone; the reason is for the reader of the page's source

What a console block shows after a command must be what the command prints. A block without a marker
is checked but not run: `test_commands.py` says what that means.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
MARKER = re.compile(r"<!--\s*test:\s*(?P<words>.*?)\s*-->", re.DOTALL)
SHELL, PYTHON, CONSOLE = ("sh", "bash", "shell"), ("python",), ("console",)
TEXT = ("", "text", "json", "yaml", "docker", "none", "{toctree}")
REDIRECTIONS = frozenset({">", ">>", "<", ">&"})
ENDS = frozenset({"&", "&&", "|", "||", ";", "(", ")"})
OPERATORS = REDIRECTIONS | ENDS


@dataclass(frozen=True)
class Block:
    """One code block: where it stands, its language, its text, its marker's words."""

    page: str
    line: int
    language: str
    text: str
    marker: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_shell(self) -> bool:
        return self.language in SHELL or self.language in CONSOLE

    @property
    def commands(self) -> str:
        """The lines that a reader would type; those after `$ ` in a console block."""
        if self.language not in CONSOLE:
            return self.text
        return "\n".join(command for command, _ in self.exchanges)

    @property
    def exchanges(self) -> list[tuple[str, str]]:
        """The commands of a console block, each with what it prints."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found and line.startswith("> ") and not found[-1][1]:
                found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
            elif found:
                found[-1][1].append(line)
        return [(command, "\n".join(lines)) for command, lines in found]


def pages() -> list[Path]:
    """Return README.md and the written pages; the reference is made from code that is tested."""
    written = (p for p in (ROOT / "docs").rglob("*.md") if p.parent.name != "reference")
    return [ROOT / "README.md", *sorted(written)]


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page, fenced or indented, in order."""
    found, marker = [], ""
    name = str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block" and (match := MARKER.search(token.content)):
            marker = match["words"]
        elif token.type in ("fence", "code_block"):
            language = token.info.strip() if token.type == "fence" else _guess(token.content)
            line = (token.map or [0])[0] + 1
            found.append(Block(name, line, language, token.content, marker))
            marker = ""
    return found


def all_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks_of(page)]


def _guess(text: str) -> str:
    """Return the language of an indented block, which names none."""
    return "python" if re.match(r"(from|import) \w", text) else "sh"


def simple_commands(script: str) -> Iterator[list[str]]:
    """Yield the words of each simple command, without assignments before it and redirections."""
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
