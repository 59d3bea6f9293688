"""Folders of the user's with the names of our packages are never imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("components", "pipelines", "regraft_client", "regraft_core", "serving")


@pytest.fixture
def decoys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with packages of these names, whose import fails."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('imported {name}')\n")
    for name in ("PYTHONPATH", "PYTHONSAFEPATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=300
    )


def test_the_decoys_would_be_imported(decoys: Path) -> None:
    assert "imported components" in run(decoys, "-c", "import components").stderr


@pytest.mark.parametrize("path", [None, ":", "."])
def test_the_command_imports_its_own_packages(
    decoys: Path, path: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path:  # the current folder by another way
        monkeypatch.setenv("PYTHONPATH", path)
    ended = run(decoys, "-m", "regraft", "recipe-schema")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["title"] == "Recipe"


@pytest.mark.parametrize("path", [None, "."])
def test_a_run_and_its_steps_import_their_own_packages(
    decoys: Path, shapes: Path, path: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path:
        monkeypatch.setenv("PYTHONPATH", path)
    ended = run(
        decoys, "-m", "regraft", "run", str(shapes), "--backbone", "tiny", "--strategies", "head",
        "--min-accuracy", "0.9999",
    )  # fmt: skip
    assert ended.returncode == 3, ended.stderr
    first, *_ = ended.stderr.splitlines()
    assert first.startswith("no recipe: backbone tiny, image px 64, strategies head, ")
    (run_dir,) = (decoys / "runs").iterdir()
    assert run_dir.name == shapes.name
    assert json.loads((run_dir / "summary.json").read_text())["verdict"] == "rejected"
