"""A run is logged to a real MLflow 3 server, which runs in an environment of its own.

Its versions do not fit Regraft's. The environment is made once and kept in pytest's cache.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import requests

from regraft_core.formats.manifests.model import Epoch
from regraft_core.formats.run_outcome import RunDetails
from regraft_core.tracking.mlflow_log import MlflowTarget, log_to_mlflow
from regraft_core.tracking.tracked_run import TrackedRun, TrackedVersion

pytestmark = pytest.mark.long(seconds=110)

EPOCHS = [
    Epoch(phase="head", epoch=n, loss=1.0 / (n + 1), accuracy=0.5 + n / 10,
          validation_loss=float("nan"), validation_accuracy=0.6, seconds=1.0)
    for n in range(3)
]  # fmt: skip
PARAMETERS = {f"option_{n}": "x" * 700 if n == 0 else str(n) for n in range(130)}


@pytest.fixture(scope="module")
def python(request: pytest.FixtureRequest) -> Path:
    """The Python of an environment with `mlflow` in the version of the client."""
    version = metadata.version("mlflow-skinny")
    cache: Any = request.config.cache
    folder = Path(cache.mkdir(f"mlflow-{version}")) / "venv"
    program = folder / "bin" / "python"
    if not (folder / "complete").exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--clear", "--python", sys.executable, folder], check=True)
        install = [*uv, "pip", "install", "--quiet", "--python", program, f"mlflow=={version}"]
        subprocess.run(install, check=True)
        (folder / "complete").touch()
    return program


@pytest.fixture(scope="module")
def server(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a tracking server with SQLite."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
             "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/runs.db",
             "--artifacts-destination", str(folder / "artifacts")],
            env=environment | {"MLFLOW_DISABLE_TELEMETRY": "true"}, stdout=log, stderr=log,
            start_new_session=True, cwd=folder,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 400
        while not answers(url):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)


def connect(url: str) -> Any:
    from mlflow import MlflowClient  # takes seconds, also to collect other tests

    return MlflowClient(url, registry_uri=url)


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=5).status_code == 200
    except requests.RequestException:
        return False


@pytest.fixture
def run(tmp_path: Path) -> TrackedRun:
    version = tmp_path / "models" / "pets" / "1"
    version.mkdir(parents=True)
    (version / "model_card.md").write_text("# Model card\n")
    (version / "regraft.json").write_text("{}")
    page = tmp_path / "report.html"
    page.write_text("<p>report</p>")
    return TrackedRun(
        experiment="pets", name="first", verdict="accepted",
        metrics={"test_accuracy": 0.9, "roc_auc": float("nan")},
        details=RunDetails(dataset_digest="d" * 64, parameters=PARAMETERS, history=EPOCHS),
        report=page, version=TrackedVersion("pets", 1, str(version), {"canary": 1}),
    )  # fmt: skip


def test_a_run_is_logged_and_its_version_registered(
    server: str, run: TrackedRun, capfd: pytest.CaptureFixture[str]
) -> None:
    line = log_to_mlflow(run, MlflowTarget(server))
    assert line.startswith("mlflow: logged run "), line
    assert not capfd.readouterr().out
    client = connect(server)
    experiment = client.get_experiment_by_name("pets")
    assert experiment is not None
    (logged,) = client.search_runs([experiment.experiment_id])
    assert (logged.info.status, logged.info.run_name) == ("FINISHED", "first")
    assert logged.data.metrics["test_accuracy"] == 0.9 and "roc_auc" not in logged.data.metrics
    assert logged.data.tags["regraft.verdict"] == "accepted"
    assert logged.data.tags["regraft.dataset_digest"] == "d" * 64
    assert len(logged.data.params) == 130 and len(logged.data.params["option_0"]) == 500
    curve = client.get_metric_history(logged.info.run_id, "epoch_accuracy")
    assert [(one.step, one.value) for one in curve] == [(0, 0.5), (1, 0.6), (2, 0.7)]
    assert "epoch_validation_loss" not in logged.data.metrics
    found = [one.path for one in client.list_artifacts(logged.info.run_id, "report")]
    found += [one.path for one in client.list_artifacts(logged.info.run_id, "model")]
    assert found == ["report/report.html", "model/model_card.md", "model/regraft.json"]
    canary = client.get_model_version_by_alias("pets", "canary")
    assert run.version is not None
    assert canary.tags == {"regraft.version": "1", "regraft.path": run.version.path}
    assert canary.run_id == logged.info.run_id

    # The same version again adds none; a second one becomes canary, and the first stable.
    log_to_mlflow(run, MlflowTarget(server))
    second = replace(run.version, number=2, path=f"{run.version.path}x",
                     labels={"stable": 1, "canary": 2})  # fmt: skip
    log_to_mlflow(replace(run, version=second), MlflowTarget(server))
    assert len(client.search_model_versions("name='pets'")) == 2
    stable, canary = (client.get_model_version_by_alias("pets", name)
                      for name in ("stable", "canary"))  # fmt: skip
    assert (stable.tags["regraft.version"], canary.tags["regraft.version"]) == ("1", "2")


def test_a_run_that_exists_is_used_and_not_ended(server: str, run: TrackedRun) -> None:
    client = connect(server)
    experiment = client.create_experiment("kubeflow")
    created = client.create_run(experiment).info.run_id
    rejected = replace(run, verdict="rejected", version=None, report=None)
    line = log_to_mlflow(rejected, MlflowTarget(server, experiment, created))
    assert created in line
    logged = client.get_run(created)
    assert logged.info.status == "RUNNING"
    assert logged.data.tags["regraft.verdict"] == "rejected"
    assert len(client.search_runs([experiment])) == 1
