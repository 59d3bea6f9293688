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
OLD_WORDS = r"""
    pictures? truths? anew besides? foretold litter remed\w+ lacks? strangers? unfamiliar\w*
    likeness\w* unlike judg\w+ prove[sdn]? proofs? graft\w* mends? address\w* shares?\sof spread
    drawn draws? lets?\sout goes\sout tells? told asks? asked knows? known looks? stands? lies
    claims? tries figures? noise in\sservice surest? killed face lecture\w* passes colou?rs as\sin
    where\sit\sis a\ssecond\b
"""
# The same option with the same meaning, in words that fit the command.
SAME_MEANING = {
    "--version": "of a model in predict and publish; `regraft --version` is before any command",
    "--out": "the folder to write to: a run, which has a default, or a dataset",
    "--output": "what to write: the file of a pipeline, or the predictions",
    "--fixes": "the file of decisions, which review writes and a run applies",
    "--ray": "the Ray cluster; on Kubeflow, only the address of an existing one",
    "--port": "the port to listen on, of gRPC or of a page",
    "--backbone": "the pretrained model; classify uses it with its own classes",
    "--image-px": "the size of the input, which a run can choose",
    "--weights": "of a backbone, of a whole classifier, or of a model that is only shown",
    "--model": "the name of a published model, which predict needs for a server only",
    "--engine": "the server that is started, by a run to verify a model, by serve for clients",
    "--serving-engine": "what a run verifies a model for, and what serve and predict compute with",
    "--dry-run": "shows the effect of the command, which is another for each command",
    "--version-label": "the label of a version, which run and publish set and predict selects",
}


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
            text = re.sub(r" \(default: .*\)$", "", option.help or "")
            texts[flag][text].append(command)
    differing = {flag: dict(found) for flag, found in texts.items() if len(found) > 1}
    assert {flag for flag in differing if flag not in SAME_MEANING} == set(), differing
    assert {flag for flag in SAME_MEANING if flag not in differing} == set(), "no longer needed"


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_has_no_old_word(regraft: Regraft, name: str) -> None:
    ended = regraft(*filter(None, [name]), "--help")
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", ended.out).split())
    found = [
        m.group() for word in OLD_WORDS.split() for m in re.finditer(rf"\b{word}\b", text, re.I)
    ]
    assert found == []
