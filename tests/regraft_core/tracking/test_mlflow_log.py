"""What is logged to MLflow, and that a run survives whatever its server does."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from regraft_core.formats.run_outcome import RunDetails
from regraft_core.tracking.mlflow_log import (
    MlflowTarget,
    kubeflow_target,
    log_to_mlflow,
)
from regraft_core.tracking.tracked_run import TrackedRun, as_parameters, read_details
from tests.regraft.compare.test_runs import write_run

RUN = TrackedRun(
    experiment="pets", name="first", verdict="accepted",
    metrics={"test_accuracy": 0.9, "roc_auc": float("nan")},
    details=RunDetails(dataset_digest="d" * 64, parameters={"backbone": "tiny"}),
)  # fmt: skip
EXPERIMENT = {"experiment": {"experiment_id": "7", "name": "pets", "artifact_location": "",
                             "lifecycle_stage": "active"}}  # fmt: skip
CREATED = {"run": {"info": {"run_id": "r1", "run_uuid": "r1", "experiment_id": "7",
                            "status": "RUNNING", "start_time": 1, "artifact_uri": "",
                            "lifecycle_stage": "active"}, "data": {}}}  # fmt: skip


@contextmanager
def server_that_leaves(answers: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Serve these answers, one each, and then close; yield the URL and the requested paths."""
    left, paths = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            paths.append(self.path.partition("?")[0])
            body = json.dumps(left.pop(0)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer

        def log_message(self, *_: Any) -> None:
            pass

    def serve() -> None:
        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            ports.append(server.server_port)
            ready.set()
            while left:
                server.handle_request()

    ports: list[int] = []
    ready = threading.Event()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(30)
    yield f"http://127.0.0.1:{ports[0]}", paths
    thread.join(30)


def test_a_server_that_goes_away_costs_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    before = dict(os.environ)
    with server_that_leaves([EXPERIMENT, CREATED]) as (url, paths):
        line = log_to_mlflow(RUN, MlflowTarget(url))
    assert paths == [
        f"/api/2.0/mlflow/{name}" for name in ("experiments/get-by-name", "runs/create")
    ]
    assert line.startswith(
        f"warning: mlflow: the run is complete but not (fully) logged to {url}: "
    )
    assert "\n" not in line and len(line) < 400
    written = capfd.readouterr()
    assert not written.out and "Retrying" not in written.err
    assert dict(os.environ) == before


def test_a_run_that_cannot_be_logged_completely_does_not_stay_running(tmp_path: Path) -> None:
    run = replace(RUN, report=tmp_path / "missing.html")
    ended = {"run_info": CREATED["run"]["info"] | {"status": "FAILED"}}
    answers = [EXPERIMENT, CREATED, {}, {}, {}, CREATED, CREATED, ended]
    with server_that_leaves(answers) as (url, paths):
        line = log_to_mlflow(run, MlflowTarget(url))
        for _ in range(len(answers) - len(paths)):  # the server ends after its last answer
            urlopen(url).close()
    assert line.startswith("warning: mlflow: ")
    assert "/api/2.0/mlflow/runs/update" in paths


def test_secrets_are_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token-1234567890")
    with server_that_leaves([EXPERIMENT]) as (url, _):
        address = url.removeprefix("http://")
        line = log_to_mlflow(RUN, MlflowTarget(f"http://user:secret-word@{address}"))
    assert "warning: mlflow" in line and address in line
    assert "secret-word" not in line and "user:" not in line and "token-123" not in line


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ("", {}, None),
        ("", {"MLFLOW_RUN_ID": "r"}, None),
        ("http://a", {}, MlflowTarget("http://a")),
        ("", {"MLFLOW_TRACKING_URI": "http://b"}, MlflowTarget("http://b")),
        (
            "",
            {"MLFLOW_TRACKING_URI": "http://b", "MLFLOW_EXPERIMENT_ID": "7", "MLFLOW_RUN_ID": "r"},
            MlflowTarget("http://b", "7", "r"),
        ),
        ("http://a", {"MLFLOW_TRACKING_URI": "http://b", "MLFLOW_RUN_ID": "r"},
         MlflowTarget("http://a")),
        ("http://b/", {"MLFLOW_TRACKING_URI": "http://b", "MLFLOW_RUN_ID": "r"},
         MlflowTarget("http://b", "", "r")),
    ],
)  # fmt: skip
def test_a_step_on_kubeflow_finds_the_server(
    given: str, environment: dict[str, str], expected: MlflowTarget | None
) -> None:
    assert kubeflow_target(given, environment) == expected


def test_the_details_are_those_of_the_chosen_model(tmp_path: Path) -> None:
    evaluation = write_run(tmp_path / "run", 3) / "steps" / "by_content" / "evaluation"
    with pytest.raises(Exception, match=r"evaluation\.json"):
        read_details(evaluation)
    data = json.loads((evaluation / "report.json").read_text())
    (evaluation / "evaluation.json").write_text(json.dumps(data["evaluation"]))
    found = read_details(evaluation)
    assert found.dataset_digest == f"{200:064x}"
    assert found.parameters["backbone"] == "tiny" and found.parameters["train_images"] == "200"
    plain = RunDetails(dataset_digest=found.dataset_digest)
    for damaged in ({}, data | {"options": None}, [data]):
        (evaluation / "report.json").write_text(json.dumps(damaged))
        assert read_details(evaluation) == plain
    (evaluation / "report.json").unlink()
    (evaluation / "content.json").write_text("{}")  # a damaged reference to a store
    assert read_details(evaluation) == plain


def test_parameters_are_short_texts_without_secrets() -> None:
    found = as_parameters({"sources": ["s3://a", "https://u:p@h/x?sig=1"], "seed": 1, "x": "a\nb"})
    assert found == {"sources": '["s3://a", "https://h/x?..."]', "seed": "1", "x": "a b"}
