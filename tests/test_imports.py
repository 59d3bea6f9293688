"""Who may import whom: the architecture's one-way arrows, checked from the source text."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STEPS = sorted(
    p.name
    for p in (ROOT / "components").iterdir()
    if p.is_dir() and p.name != "core" and (p / "component.py").exists()
)


def imported(path: Path, *, top_level_only: bool) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def reaches(names: set[str], *packages: str) -> set[str]:
    return {n for n in names if any(n == p or n.startswith(p + ".") for p in packages)}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


TF = ("tensorflow", "keras", "tensorflow_serving")


@pytest.mark.parametrize("path", sources("components/core"), ids=str)
def test_core_imports_no_step_and_no_kfp(path: Path) -> None:
    names = imported(path, top_level_only=False)
    steps = [f"components.{step}" for step in STEPS]
    assert not reaches(names, "kfp", "pipelines", "serving", *steps)


@pytest.mark.parametrize("name", ["artifacts", "errors", "options", "records", "step"])
def test_formats_never_import_tensorflow(name: str) -> None:
    names = imported(ROOT / f"components/core/{name}.py", top_level_only=False)
    assert not reaches(names, *TF, "numpy")


@pytest.mark.parametrize("path", [p for s in STEPS for p in sources(f"components/{s}")], ids=str)
def test_a_step_imports_core_only(path: Path) -> None:
    own = path.parent.name
    names = imported(path, top_level_only=False)
    others = [f"components.{step}" for step in STEPS if step != own]
    assert not reaches(names, "pipelines", *others)
    if own not in ("verify", "publish"):
        assert not reaches(names, "serving")
    if path.name == "component.py":
        top = imported(path, top_level_only=True)
        assert not reaches(top, *TF)
    else:
        assert not reaches(names, "kfp")


@pytest.mark.parametrize("path", sources("pipelines"), ids=str)
def test_pipelines_import_no_tensorflow_at_module_level(path: Path) -> None:
    assert not reaches(imported(path, top_level_only=True), *TF)


@pytest.mark.parametrize("path", sources("serving"), ids=str)
def test_serving_imports_core_formats_only(path: Path) -> None:
    names = imported(path, top_level_only=False)
    steps = [f"components.{step}" for step in STEPS]
    assert not reaches(names, "kfp", "pipelines", *steps)
