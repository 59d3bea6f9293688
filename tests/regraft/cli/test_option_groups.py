"""A dataclass as a parameter of a command becomes one option per field."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from regraft.cli.options.option_groups import with_groups


@dataclass(frozen=True)
class Address:
    """A street with a number."""

    street: Annotated[str, typer.Option(help="The street.")] = "Main Street"
    number: Annotated[int, typer.Option(min=1)] = 1


def visit(name: str, address: Address, *, loud: bool = False) -> None:
    """Visit someone."""
    print(name, address.street, address.number, loud)


def test_fields_become_options_and_the_command_gets_the_dataclass() -> None:
    app = typer.Typer()
    app.command()(with_groups(visit))
    runner = CliRunner()
    result = runner.invoke(app, ["Ann", "--street", "Side Street", "--number", "4", "--loud"])
    assert result.output.strip() == "Ann Side Street 4 True"
    assert runner.invoke(app, ["Bob"]).output.strip() == "Bob Main Street 1 False"
    assert runner.invoke(app, ["Bob", "--number", "0"]).exit_code == 2
    assert "The street." in runner.invoke(app, ["--help"]).output


def test_the_command_keeps_its_name_and_docstring() -> None:
    command = with_groups(visit)
    assert (command.__name__, command.__doc__) == ("visit", "Visit someone.")
    assert list(inspect.signature(command).parameters) == ["name", "street", "number", "loud"]
