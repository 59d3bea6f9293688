"""Every command in the README and the pages exists; every option is explained.

`regraft` commands are parsed by the real command line, and the options of a run by the real recipe.
Targets of `make`, modules of `python -m`, files and URLs of the server exist. Python is compiled,
its imports are executed, and its names are defined.
"""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import typer

from pipelines.recipes.recipe import OPTION_FIELDS
from pipelines.recipes.recipe_file import recipe_of
from regraft.cli.main import app
from tests.docs.blocks import PYTHON, Block, all_blocks, simple_commands
from tests.docs.commands import problem_of, python_problem

location = attrgetter("location")
CHECKED = [block for block in all_blocks() if not block.marker.startswith("unchecked")]


@pytest.mark.parametrize("block", [b for b in CHECKED if b.is_shell], ids=location)
def test_commands_exist(block: Block) -> None:
    problems = [f"{' '.join(words)}: {found}" for words in simple_commands(block.commands)
                if (found := problem_of(words))]  # fmt: skip
    assert problems == []


@pytest.mark.parametrize("block", [b for b in CHECKED if b.language in PYTHON], ids=location)
def test_python_compiles_and_its_names_exist(block: Block) -> None:
    assert python_problem(block.text) is None


@pytest.mark.parametrize("block", [b for b in CHECKED if b.marker == "recipe"], ids=location)
def test_recipes_are_valid(block: Block, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(block.text, encoding="utf-8")
    assert recipe_of(str(recipe), {}).sources


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("regraft rum --out x", "no command 'rum'"),
        ("regraft run --sorce x --out y", "--sorce"),
        ("regraft run --source x --out y --backbone vgg61", "vgg61"),
        ("regraft run --source x --out y --strategies head,tip", "tip"),
        ("regraft run --source x --out y --folds 1", "folds"),
        ("regraft predict a.png --server grpc://h:1 --concurrency many", "--concurrency"),
        ("make everything", "everything"),
        ("curl http://127.0.0.1:8501/v1/model/digits", "/v1/model/digits"),
        ("python -m benchmarks.nothing", "benchmarks.nothing"),
        ("python -m pytest tests/nothing.py", "tests/nothing.py"),
        ("kubectl apply -k serving/nothing", "serving/nothing"),
        ("gitt clone", "gitt"),
    ],
)
def test_an_invalid_command_is_found(words: str, part: str) -> None:
    found = problem_of(words.split())
    assert found is not None
    assert part in found


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("from regraft_client.grpc import GrpcCliant", "GrpcCliant"),
        ("for x in y: print(x)", "'y'"),
        ("def broken(:", "line 1"),
    ],
)
def test_invalid_python_is_found(source: str, part: str) -> None:
    found = python_problem(source)
    assert found is not None
    assert part in found


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_and_option_is_explained(name: str) -> None:
    command = commands()[name]
    assert "Example: " in command.help
    words = command.help.split("Example: ")[1].split()
    assert problem_of(words) is None
    assert [p.name for p in command.params if not (p.hidden or p.help)] == []


def test_every_key_of_a_recipe_is_explained() -> None:
    assert [name for name, field in OPTION_FIELDS.items() if not field.description] == []
