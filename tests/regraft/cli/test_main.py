"""The command itself: first steps, help, version, errors, and what Tab offers."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import typer

from regraft.cli.completion import backbones, offered, recipes
from regraft.cli.main import FIRST_STEPS, app
from regraft_core.runtime.version import VERSION
from tests.command_line import Regraft
from tests.docs.commands import complaint


def test_without_arguments_it_says_what_to_type_first(regraft: Regraft) -> None:
    ended = regraft()
    assert (ended.code, ended.out.strip()) == (0, FIRST_STEPS)
    lines = [line.strip() for line in FIRST_STEPS.splitlines() if line.startswith("  regraft")]
    commands = [line.split("  ")[0].split() for line in lines]
    assert len(commands) == 5
    assert [found for command in commands if (found := complaint(command))] == []
    assert max(map(len, FIRST_STEPS.splitlines())) <= 80


def test_version_and_help(regraft: Regraft) -> None:
    assert regraft("--version").out.strip() == VERSION
    ended = regraft("--help")
    assert ended.code == 0
    assert all(name in ended.out for name in ("run", "classify", "inspect", "doctor", "bench"))


@pytest.mark.parametrize("columns", ["40", "60", "80"])
@pytest.mark.parametrize("command", ["serve", "run", "submit"])
def test_no_option_is_cut_short(
    regraft: Regraft, monkeypatch: pytest.MonkeyPatch, command: str, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    group: Any = typer.main.get_command(app)
    ended = regraft(command, "--help")
    names = {name for option in group.commands[command].params for name in option.opts
             if name.startswith("--") and not option.hidden}  # fmt: skip
    assert sorted(name for name in names if not re.search(rf"{name}\b", ended.out)) == []


def test_errors_name_the_command_as_users_know_it(regraft: Regraft) -> None:
    ended = regraft("clasify", "cat.png")
    assert ended.code == 2
    assert "classify" in ended.err
    assert "See 'regraft --help'" in ended.err


def test_tab_offers_names() -> None:
    assert backbones("vgg") == ["vgg16", "vgg19"]
    assert "digits" in recipes("")
    assert offered(["head", "top"])("t") == ["top"]


def completed(instruction: str, *words: str) -> str:
    """Return what the command prints for a shell that completes `words`."""
    environment = {
        "_REGRAFT_COMPLETE": instruction,
        "COMP_WORDS": " ".join(("regraft", *words)),
        "COMP_CWORD": str(len(words)),
        "PATH": "/usr/bin:/bin",
    }
    command = [sys.executable, "-m", "regraft.cli.main"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_told_how_to_complete(shell: str) -> None:
    assert f"_REGRAFT_COMPLETE=complete_{shell}" in completed(f"source_{shell}")


def test_tab_offers_commands_and_values() -> None:
    def offers(*words: str) -> list[str]:
        return completed("complete_bash", *words).split()

    assert offers("cla") == ["classify"]
    assert offers("run", "--leakage", "re") == ["repair", "report"]
    assert offers("inspect", "vgg") == ["vgg16", "vgg19"]


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from regraft.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'kfp', 'sklearn', 'numpy', 'PIL', 'requests'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
