"""Old and usual names of options, and the options that they mean."""

from __future__ import annotations

import pytest

from pipelines.recipes import option_hints
from pipelines.recipes.option_hints import suggest_commands, suggest_options
from pipelines.recipes.recipe import RECIPE_FIELDS
from regraft.cli.commands import COMMANDS
from regraft.cli.main import app
from tests.regraft.cli.test_help import options_by_command


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("head", ["pooling"]),
        ("epochs", ["fine_tune_epochs"]),
        ("cache", ["download_cache"]),
        ("bakcbone", ["backbone"]),
        ("zzzzzz", []),
    ],
)
def test_recipe_keys(name: str, meant: list[str]) -> None:
    assert suggest_options(name, RECIPE_FIELDS) == meant


@pytest.mark.parametrize(
    ("name", "meant"),
    [("plan", ["estimate"]), ("train", ["run"]), ("serv", ["serve"]), ("zzzzzz", [])],
)
def test_commands(name: str, meant: list[str]) -> None:
    assert suggest_commands(name, COMMANDS) == meant


def test_every_suggestion_exists_and_no_name_is_an_option_of_every_command() -> None:
    flags = options_by_command(app)
    known = set(RECIPE_FIELDS) | {
        flag[2:].replace("-", "_") for options in flags.values() for flag in options
    }
    for name, meant in option_hints._MEANT.items():
        assert set(meant) <= known, name
        assert name not in RECIPE_FIELDS, name
    assert set(option_hints._COMMANDS.values()) <= set(COMMANDS)
    assert not set(option_hints._COMMANDS) & set(COMMANDS)
