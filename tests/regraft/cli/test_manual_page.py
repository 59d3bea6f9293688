"""The manual page has every command and option, in macros that man(7) knows."""

from __future__ import annotations

import re
from typing import Any

import typer

from regraft.cli.commands import COMMANDS
from regraft.cli.main import app
from regraft.cli.manual_page import manual_page

MACROS = {".TH", ".SH", ".SS", ".TP", ".PP", ".B"}


def test_the_page_has_every_command_and_option() -> None:
    group: Any = typer.main.get_command(app)
    page = manual_page(group)
    sections = dict(re.findall(r"^\.SS (.+)\n((?:(?!\.S[SH]).*\n)*)", page, re.MULTILINE))
    assert [name.replace(r"\-", "-") for name in sections] == list(COMMANDS)
    for name, text in sections.items():
        command = group.commands[name.replace(r"\-", "-")]
        options = [flag for one in command.params if not one.hidden for flag in one.opts
                   if flag.startswith("--") and flag != "--help"]  # fmt: skip
        assert [flag for flag in options if flag.replace("-", r"\-") not in text] == []
    assert re.search(r"^\.B 3\nThe gate rejected", page, re.MULTILINE)


def test_text_is_never_a_macro_or_an_escape() -> None:
    one: Any = typer.Typer()

    @one.command()
    def show(path: str = typer.Argument(help=".so /etc/passwd")) -> None:
        r"""'quoted \n and .dots."""

    @one.command()
    def other() -> None:
        """Other."""

    page = manual_page(typer.main.get_command(one))
    used = {line.split()[0] for line in page.splitlines() if line.startswith((".", "'"))}
    assert used <= MACROS
    assert r"\&.so /etc/passwd" in page and r"\&'quoted \en" in page
