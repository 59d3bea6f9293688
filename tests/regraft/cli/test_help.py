"""The help of every command: complete, in the words of the field, and one meaning per option."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from typing import Any

import pytest
import typer

from regraft.cli.commands import COMMANDS
from regraft.cli.main import app
from tests.command_line import Regraft

# Words that the project does not use in its help (the field has others for these things).
OLD_WORDS = [
    r"pictures?",
    r"truths?",
    r"anew",
    r"besides?",
    r"foretold",
    r"litter",
    r"remed\w+",
    r"lacks?",
    r"strangers?",
    r"unfamiliar\w*",
    r"likeness\w*",
    r"unlike",
    r"judg\w+",
    r"prove[sdn]?",
    r"proofs?",
    r"graft\w*",
    r"mends?",
    r"address\w*",
    r"shares?\sof",
    r"spread",
    r"drawn",
    r"draws?",
    r"lets?\sout",
    r"goes\sout",
    r"tells?",
    r"told",
    r"asks?",
    r"asked",
    r"knows?",
    r"known",
    r"looks?",
    r"stands?",
    r"lies",
    r"claims?",
    r"tries",
    r"figures?",
    r"noise",
    r"in\sservice",
    r"surest?",
    r"killed",
    r"face",
    r"lecture\w*",
    r"passes",
    r"colou?rs",
    r"as\sin",
    r"where\sit\sis",
    r"a\ssecond\b",
]
# The same option with the same meaning, in words that fit the command.
SAME_MEANING = {
    "--out": "a run's folder has a default, and a dataset's has none",
    "--output": "a recipe or a compiled pipeline",
    "--weights": "a backbone, a whole classifier, or a model to inspect",
    "--strategies": "",
    "--cut": "inspect needs --strategy top",
    "--batch-norm": "inspect counts, and run trains",
    "--dense-width": "inspect compares heads, and run trains one",
    "--cache-gb": "estimate has no cache of its own",
    "--head-epochs": "estimate trains nothing",
    "--model": "the name of a published model",
    "--version": "publish labels a version, predict uses one, and regraft prints its own",
    "--version-label": "publish sets it, predict uses it",
    "--keep-last": "in a run it is an option of a recipe",
    "--engine": "serve starts it for users, and run for verification",
    "--json": "bench writes a file",
}  # fmt: skip


def options_by_command(group: typer.Typer) -> dict[str, dict[str, Any]]:
    """Return the options of all commands by flag; `regraft` itself is the command ''."""
    root: Any = typer.main.get_command(group)
    found = {"": root, **root.commands}
    return {
        name: {
            flag: option
            for option in command.params
            if option.param_type_name == "option" and not option.hidden
            for flag in (*option.opts, *option.secondary_opts)
            if flag.startswith("--")
        }
        for name, command in found.items()
    }


@pytest.fixture(scope="module")
def options() -> dict[str, dict[str, Any]]:
    return options_by_command(app)


@pytest.mark.parametrize("columns", ["60", "80", "120"])
@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_is_complete(
    regraft: Regraft, monkeypatch: pytest.MonkeyPatch, name: str, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    ended = regraft(name, "--help")
    assert ended.code == 0
    for defect in ("PydanticUndefined", "None", "One of ,", ", ,", "of .", "…", "<class"):
        assert defect not in ended.out, defect
    assert f"Example: regraft {name} " in " ".join(ended.out.split()) or name == "recipe-schema"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_and_option_has_a_help(name: str) -> None:
    root: Any = typer.main.get_command(app)
    command = root.commands[name]
    for parameter in command.params:
        text = parameter.help or ""
        assert len(text) > 5, parameter.name
        assert text[0].isupper() or text.startswith(("`", ".npz", "imagenet")), text
        assert re.search(r"[.)]$", text), text
        assert "One of ," not in text and not re.search(r"(, *,|: *,)", text), text


def test_help_lists_every_command_with_its_summary(regraft: Regraft) -> None:
    ended = regraft("--help")
    root: Any = typer.main.get_command(app)
    assert "..." not in ended.out.replace("[ARGS]...", "")
    for name, (_, summary) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", ended.out, re.MULTILINE), name
        first = (inspect.cleandoc(root.commands[name].help)).split("\n\n")[0]
        assert first.startswith(summary[:-1]), name


def test_an_option_means_the_same_in_every_command(options: dict[str, dict[str, Any]]) -> None:
    texts: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for command, flags in options.items():
        for flag, option in flags.items():
            texts[flag][option.help or ""].append(command)
    differing = {flag: dict(found) for flag, found in texts.items() if len(found) > 1}
    assert {flag for flag in differing if flag not in SAME_MEANING} == set(), differing
    assert {flag for flag in SAME_MEANING if flag not in differing} == set(), "no longer needed"


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_has_no_old_word(regraft: Regraft, name: str) -> None:
    ended = regraft(*filter(None, [name]), "--help")
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", ended.out).split())
    found = [m.group() for word in OLD_WORDS for m in re.finditer(rf"\b{word}\b", text, re.I)]
    assert found == []
