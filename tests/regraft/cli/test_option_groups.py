"""A dataclass as a parameter of a command stands for one option a field."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from regraft.cli.option_groups import with_groups


@dataclass(frozen=True)
class Door:
    """Where to knock."""

    street: Annotated[str, typer.Option(help="The street.")] = "Main Street"
    number: Annotated[int, typer.Option(min=1)] = 1


def visit(name: str, door: Door, *, loud: bool = False) -> None:
    """Knock somewhere."""
    print(name, door.street, door.number, loud)


def test_fields_become_options_and_come_back_as_the_dataclass() -> None:
    app = typer.Typer()
    app.command()(with_groups(visit))
    runner = CliRunner()
    given = runner.invoke(app, ["Ann", "--street", "Side Street", "--number", "4", "--loud"])
    assert given.output.strip() == "Ann Side Street 4 True"
    assert runner.invoke(app, ["Bob"]).output.strip() == "Bob Main Street 1 False"
    assert runner.invoke(app, ["Bob", "--number", "0"]).exit_code == 2
    assert "The street." in runner.invoke(app, ["--help"]).output


def test_the_command_keeps_its_name_and_explanation() -> None:
    command = with_groups(visit)
    assert (command.__name__, command.__doc__) == ("visit", "Knock somewhere.")
    assert list(inspect.signature(command).parameters) == ["name", "street", "number", "loud"]
