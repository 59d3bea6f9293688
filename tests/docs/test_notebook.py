"""The notebook runs from its first cell to its last, with parameters that make it quick."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.blocks import ROOT
from tests.docs.commands import python_problem

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
QUICK = {"IMAGE_PX": 32, "FINE_TUNE_EPOCHS": 1, "MIN_ACCURACY": 0.3}


def cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: Any) -> str:
    return "".join(out.text for out in cell.outputs if out.get("name") == "stdout")


def plots(cell: Any) -> int:
    return sum("image/png" in out.get("data", {}) for out in cell.outputs)


def test_it_is_stored_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert [cell.outputs for cell in cells(notebook) if cell.outputs] == []


def test_its_names_exist() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert python_problem("\n".join(cell.source for cell in cells(notebook))) is None


@pytest.mark.long(seconds=90)
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    [parameters] = [
        cell for cell in cells(notebook) if "parameters" in cell.metadata.get("tags", ())
    ]
    parameters.source += "".join(f"\n{name} = {value!r}" for name, value in QUICK.items())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    NotebookClient(
        notebook,
        timeout=500,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    ran = cells(notebook)
    assert sum(plots(cell) for cell in ran) == 4  # curves, confusion, the image, probabilities
    assert "accepted" in printed(ran[1])
    assert "gRPC   " in "".join(map(printed, ran))
    assert (tmp_path / "runs/quickstart/models/digits/1/saved_model.pb").is_file()
