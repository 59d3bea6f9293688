"""The command itself: first steps, version, errors, and Tab completion."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import typer

from regraft.cli.main import FIRST_STEPS, app
from regraft.cli.options.completion import complete_backbones, complete_recipes, completing
from regraft_core.runtime.version import VERSION
from tests.command_line import Regraft
from tests.docs.commands import problem_of


def test_without_arguments_it_prints_the_first_steps(regraft: Regraft) -> None:
    ended = regraft()
    assert (ended.code, ended.out.strip()) == (0, FIRST_STEPS)
    lines = [line.strip() for line in FIRST_STEPS.splitlines() if line.startswith("  regraft")]
    commands = [line.split("  ")[0].split() for line in lines]
    assert len(commands) == 5
    assert [found for command in commands if (found := problem_of(command))] == []
    assert max(map(len, FIRST_STEPS.splitlines())) <= 80


def test_version(regraft: Regraft) -> None:
    assert regraft("--version").out.strip() == VERSION


@pytest.mark.parametrize("columns", ["40", "60", "80"])
@pytest.mark.parametrize("command", ["serve", "run", "submit"])
def test_no_option_is_truncated(
    regraft: Regraft, monkeypatch: pytest.MonkeyPatch, command: str, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    group: Any = typer.main.get_command(app)
    ended = regraft(command, "--help")
    names = {name for option in group.commands[command].params for name in option.opts
             if name.startswith("--") and not option.hidden}  # fmt: skip
    assert sorted(name for name in names if not re.search(rf"{name}\b", ended.out)) == []


def test_an_unknown_command_gets_suggestions(regraft: Regraft) -> None:
    ended = regraft("clasify", "cat.png")
    assert ended.code == 2
    assert "did you mean classify?" in ended.err
    assert "See 'regraft --help'" in ended.err


def test_tab_completes_names() -> None:
    assert complete_backbones("vgg") == ["vgg16", "vgg19"]
    assert "digits" in complete_recipes("")
    assert completing(["head", "top"])("t") == ["top"]


def completed(instruction: str, *words: str) -> str:
    """Return the output of the command for a shell that completes `words`."""
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
def test_shells_get_a_completion_script(shell: str) -> None:
    assert f"_REGRAFT_COMPLETE=complete_{shell}" in completed(f"source_{shell}")


def test_tab_completes_commands_and_values() -> None:
    def offered(*words: str) -> list[str]:
        return completed("complete_bash", *words).split()

    assert offered("cla") == ["classify"]
    assert offered("run", "--leakage", "re") == ["repair", "report"]
    assert offered("inspect", "vgg") == ["vgg16", "vgg19"]


@pytest.mark.parametrize(("words", "also"), [(["--help"], "'pydantic'"), (["run", "--help"], "")])
def test_help_imports_nothing_heavy(words: list[str], also: str) -> None:
    code = (
        "import sys\n"
        "from regraft.cli.main import main\n"
        f"try: main({words})\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'kfp', 'sklearn', 'numpy', 'PIL', 'requests', "
        f"'rich', 'http.client', 'ruamel.yaml', {also}}}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
