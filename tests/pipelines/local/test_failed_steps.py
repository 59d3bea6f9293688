"""A failed step is one line on the terminal: step, cause, the file if there is one, and the log.

The steps run in this process, each with an input that is damaged or missing. What they report as
events is all that a local run shows of them.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.local.run import failed_step
from pipelines.local.step_events import StepEvents, reading_events
from pipelines.recipes.recipe import make_recipe
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.manifests.model import CandidatesManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.step_reports import EVENTS_VARIABLE

HALF = '{"schema_version": 2, "digest'


def artifact(path: Path) -> Any:
    return SimpleNamespace(path=str(path), uri=str(path), metadata={})


def half_of(folder: Path, file: str) -> Path:
    """Write the first half of a manifest, as a full disk leaves it."""
    folder.mkdir(parents=True)
    (folder / file).write_text(HALF)
    return folder / file


def resolve(folder: Path, dataset: Path) -> tuple[dict[str, Any], Path]:
    weights = folder / "w.keras"
    recipe = make_recipe(sources=("sample:digits",), weights=str(weights), model_name="m")
    return {"values": {**recipe.arguments(), "workers": 1, "run_id": ""}}, weights


def ingest(folder: Path, dataset: Path) -> tuple[dict[str, Any], Path]:
    (folder / "images" / "cat").mkdir(parents=True)
    archive = Path(shutil.make_archive(str(folder / "images"), "zip", folder / "images"))
    archive.write_bytes(archive.read_bytes()[:-9])
    outputs = {name: artifact(folder / name) for name in ("dataset", "data_card")}
    return {"options": {"sources": [str(archive)]}, **outputs}, archive


def extract_features(folder: Path, dataset: Path) -> tuple[dict[str, Any], Path]:
    file = half_of(folder / "dataset", DatasetManifest.file_name)
    return {"options": {"backbone": "tiny"}, "dataset": artifact(file.parent),
            "features": artifact(folder / "features"), "shard": 0}, file  # fmt: skip


def merge_features(folder: Path, dataset: Path) -> tuple[dict[str, Any], Path]:
    file = half_of(folder / "part", FeaturesManifest.file_name)
    return {"parts": [artifact(file.parent)], "features": artifact(folder / "features")}, file


def train_head(folder: Path, dataset: Path) -> tuple[dict[str, Any], Path]:
    (folder / "features").mkdir()  # without its manifest
    file = folder / "features" / FeaturesManifest.file_name
    return {"options": {}, "features": artifact(file.parent),
            "model": artifact(folder / "model")}, file  # fmt: skip


def fine_tune(folder: Path, dataset: Path) -> tuple[dict[str, Any], Path]:
    file = half_of(folder / "features", FeaturesManifest.file_name)
    inputs = {"dataset": dataset, "features": file.parent, "head": folder / "head",
              "candidates": folder / "candidates"}  # fmt: skip
    return {"options": {"strategies": ["head"]},
            **{name: artifact(path) for name, path in inputs.items()}}, file  # fmt: skip


def evaluate(folder: Path, dataset: Path) -> tuple[dict[str, Any], Path]:
    file = half_of(folder / "candidates", CandidatesManifest.file_name)
    names = ("evaluation", "model", "metrics", "classification", "report")
    return {"options": {}, "candidates": artifact(file.parent), "dataset": artifact(dataset),
            **{name: artifact(folder / name) for name in names}}, file  # fmt: skip


def record_verdict(folder: Path, dataset: Path) -> tuple[dict[str, Any], Path]:
    file = half_of(folder / "evaluation", EvaluationManifest.file_name)
    return {"options": {}, "evaluation": artifact(file.parent)}, file


def export(folder: Path, dataset: Path) -> tuple[dict[str, Any], Path]:
    file = half_of(folder / "evaluation", EvaluationManifest.file_name)
    inputs = {"model": folder / "model", "evaluation": file.parent, "dataset": dataset}
    return {"options": {}, **{name: artifact(path) for name, path in inputs.items()},
            "saved_model": artifact(folder / "saved_model")}, file  # fmt: skip


def verify(folder: Path, dataset: Path) -> tuple[dict[str, Any], Path]:
    file = half_of(folder / "saved_model", SavedModelManifest.file_name)
    names = ("model", "evaluation", "parity", "table")
    return {"options": {}, "saved_model": artifact(file.parent), "dataset": artifact(dataset),
            **{name: artifact(folder / name) for name in names}}, file  # fmt: skip


def publish(folder: Path, dataset: Path) -> tuple[dict[str, Any], Path]:
    file = half_of(folder / "saved_model", SavedModelManifest.file_name)
    options = {"destination": str(folder / "models"), "model_name": "m"}
    return {"options": options, "saved_model": artifact(file.parent), "parity": artifact(folder),
            "published": artifact(folder / "published")}, file  # fmt: skip


def conclude(folder: Path, dataset: Path) -> tuple[dict[str, Any], Path]:
    file = half_of(folder / "models" / "m" / ".runs", "run-1.json")
    return {"outcome": artifact(folder / "outcome"), "run_id": "run-1",
            "destination": str(folder / "models"), "model_name": "m"}, file  # fmt: skip


STEPS = (
    resolve, ingest, extract_features, merge_features, train_head, fine_tune, evaluate,
    record_verdict, export, verify, publish, conclude,
)  # fmt: skip


@pytest.mark.parametrize("damage", STEPS, ids=[step.__name__ for step in STEPS])
def test_a_failed_step_is_one_line(
    damage: Callable[[Path, Path], tuple[dict[str, Any], Path]],
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, log = damage.__name__, tmp_path / "run.log"
    arguments, file = damage(tmp_path, dataset)
    run = importlib.import_module(f"components.{step}.kfp_step").run
    events = StepEvents(lambda line: None, None)
    with reading_events(tmp_path, events) as written, pytest.raises(SystemExit, match="2"):
        monkeypatch.setenv(EVENTS_VARIABLE, str(written))
        run(**arguments)
    error = failed_step(events, log, 0)
    assert error is not None
    assert (error.exit_code, isinstance(error, RegraftError)) == (2, True)
    line = str(error)
    assert line.startswith(f"{step}: ") and line.endswith(f"; see {log}")
    assert str(file) in line or f"{file.name} in {file.parent}" in line
    assert line.isprintable()
    assert not {path.name for path in tmp_path.iterdir()} & {"features.json", "published", "parity"}
