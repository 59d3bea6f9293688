"""What is removed from a compiled pipeline, and what stays."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pipelines.cluster.compact_ir import as_call
from pipelines.cluster.compilation import compile_pipeline


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compile_pipeline({"workers": 8}, path)
    return next(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def test_descriptions_stay_where_the_form_of_a_run_shows_them(spec: dict[str, Any]) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert all(one["description"] for one in parameters.values())
    assert "description" not in str(
        [c.get("inputDefinitions") for c in spec["components"].values()]
    )


def test_each_step_calls_the_installed_component(spec: dict[str, Any]) -> None:
    executors = spec["deploymentSpec"]["executors"].values()
    commands = [part for one in executors for part in one["container"]["command"]]
    sources = [part for part in commands if "\ndef " in part]
    assert len(sources) == 12
    for source in sources:
        (function,) = (n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef))
        component = getattr(
            importlib.import_module(f"components.{function.name}.component"), function.name
        )
        names = list(inspect.signature(component.python_func).parameters)
        assert [one.arg for one in function.args.args] == names
        assert source.endswith(f"    return {function.name}.python_func({', '.join(names)})\n")


def test_a_component_in_short_takes_and_returns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    source = as_call(
        'def merge(\n    a: int, b: str = "x"\n) -> str:\n    """Doc."""\n    return b\n'
    )
    component = SimpleNamespace(python_func=lambda a, b: f"{a}{b}")
    module = SimpleNamespace(merge=component)
    monkeypatch.setitem(sys.modules, "components.merge", module)
    monkeypatch.setitem(sys.modules, "components.merge.component", module)
    scope: dict[str, Any] = {}
    exec(source, scope)
    assert scope["merge"](1) == "1x"
