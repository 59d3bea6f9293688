"""What is removed from a compiled pipeline, and what stays."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import yaml

from pipelines.cluster.compact_ir import without_docstrings
from pipelines.cluster.compilation import compile_pipeline
from pipelines.recipes.recipe import make_recipe


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compile_pipeline(make_recipe(sources=("sample:digits",), workers=8), path)
    return next(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def test_descriptions_stay_where_the_form_of_a_run_shows_them(spec: dict[str, Any]) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert all(one["description"] for one in parameters.values())
    assert "description" not in str(
        [c.get("inputDefinitions") for c in spec["components"].values()]
    )


def test_the_code_of_each_step_is_complete_without_its_docstring(spec: dict[str, Any]) -> None:
    executors = spec["deploymentSpec"]["executors"].values()
    sources = [
        part for one in executors for part in one["container"]["command"] if "\ndef " in part
    ]
    assert len(sources) == 12
    for source in sources:
        (function,) = (n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef))
        assert ast.get_docstring(function) is None
        assert f"from components.{function.name}.kfp_step import run" in source


def test_only_docstrings_are_removed() -> None:
    source = 'def f():\n    """One.\n\n    Two.\n    """\n    text = """kept"""\n    return text\n'
    assert without_docstrings(source) == 'def f():\n    text = """kept"""\n    return text\n'
    alone = 'def f():\n    """The whole body."""\n'
    assert without_docstrings(alone) == alone
