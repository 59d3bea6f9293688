"""`regraft submit --resume` with a local server of the KFP API."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kfp_server_api as api
import pytest
import yaml

from pipelines.cluster.kfp_api import Client, Connection
from pipelines.cluster.node_presets import PRESETS
from pipelines.cluster.submit import Settings, Submission, prepare, send
from pipelines.recipes.recipe_file import with_recipe
from tests.command_line import Ended, Regraft
from tests.pipelines.cluster.kfp_server import Fault, KfpServer, failed, kfp_server, ran, task

SAME = ("experiment_id", "pipeline_version_reference", "pipeline_spec", "runtime_config",
        "service_account")  # fmt: skip


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    monkeypatch.setattr("pipelines.cluster.kfp_api.MAX_WAIT_S", 0.01)
    with kfp_server() as running:
        yield running


@pytest.fixture(scope="module")
def submission() -> Submission:
    settings = Settings("mine", "first", "runner", "s3://bucket/runs", hardware=PRESETS["cpu"])
    values = {"destination": "s3://bucket/models", "work_dir": "s3://bucket/work", "seed": 5}
    return prepare(with_recipe("digits", values), settings)


@pytest.fixture
def run_id(server: KfpServer, submission: Submission) -> str:
    """A run that failed."""
    connection = Connection(server.address)
    created = send(Client(connection), connection, submission).id
    server.runs[created].state = "FAILED"
    return created


@pytest.fixture
def resume(server: KfpServer, regraft: Regraft) -> Regraft:
    """Resume a run of the local server."""

    def run(*arguments: str | Path | int) -> Ended:
        return regraft("submit", "--host", server.address, "--poll-s", "0.01", "--resume",
                       *arguments)  # fmt: skip

    return run


def one_line(ended: Ended) -> str:
    assert ended.code == 2, ended
    (line,) = ended.err.strip().splitlines()
    return line


def settings(run: Any) -> dict[str, Any]:
    values = run.to_dict()
    return {name: values[name] for name in SAME}


def test_a_resumed_run_has_all_settings_of_the_first(
    server: KfpServer, resume: Regraft, run_id: str
) -> None:
    first = settings(server.runs[run_id])
    assert first["runtime_config"]["parameters"]["seed"] == 5
    uploads = server.count("POST .*/upload")
    ended = resume(run_id, "--json")
    assert ended.code == 0, ended.err
    old, new = server.runs.values()
    assert settings(new) == first == settings(old)
    assert (new.run_id, new.display_name) == (ended.json["id"], ended.json["name"])
    assert new.display_name.startswith("first-resumed-")
    assert new.description == f"Resumes the run {run_id}."
    assert ended.json["page"].endswith(f"/#/runs/details/{new.run_id}")
    assert ended.json["version"] == [one.display_name for one in server.versions.values()][-1]
    assert server.count("POST .*/upload") == uploads


def test_a_run_of_a_schedule_keeps_its_service_account(
    server: KfpServer, resume: Regraft, run_id: str
) -> None:
    """KFP 2.17.0 has none for such a run, only in Argo's workflow."""
    server.runs[run_id].service_account = None
    server.nodes, server.pods_account = [], "runner"
    assert resume(run_id).code == 0
    assert [*server.runs.values()][-1].service_account == "runner"


@pytest.mark.parametrize(("accepted", "code"), [(True, 0), (False, 3)])
def test_waiting_for_a_resumed_run_ends_with_its_verdict(
    server: KfpServer, resume: Regraft, run_id: str, accepted: bool, code: int
) -> None:
    server.script = ran(accepted=accepted)
    ended = resume(run_id, "--wait")
    assert ended.code == code
    assert "train-head: SUCCEEDED 7 s" in ended.err.splitlines()
    assert ended.out.splitlines()[-1] == ("accepted" if accepted else "rejected")


def test_a_run_can_be_resumed_again(server: KfpServer, resume: Regraft, run_id: str) -> None:
    server.script = failed("train-head", "the pod was deleted")
    assert resume(run_id, "--wait").code == 1
    assert resume(list(server.runs)[1], "--run-name", "third").code == 0
    assert resume(list(server.runs)[1]).code == 0
    names = [run.display_name for run in server.runs.values()]
    assert names[0] == "first" and names[2] == "third"
    assert [len(name) for name in names] == [5, 18, 5, 18]
    assert len(set(names)) == 4


def test_a_long_name_stays_within_the_limit(
    server: KfpServer, resume: Regraft, run_id: str
) -> None:
    server.runs[run_id].display_name = "x" * 128
    assert resume(run_id).code == 0
    assert len(list(server.runs.values())[-1].display_name) == 128
    assert "run_name: expected at most 128" in one_line(resume(run_id, "--run-name", "x" * 129))


def test_a_run_that_was_created_from_a_file_is_resumed_too(
    server: KfpServer, resume: Regraft, submission: Submission
) -> None:
    """A run without a pipeline version has the whole pipeline, as the UI creates it."""
    spec, platform = yaml.safe_load_all(submission.pipeline)
    run = api.V2beta1Run(
        run_id="by-hand",
        experiment_id=server.add_experiment("mine"),
        display_name="by hand",
        pipeline_spec={"pipeline_spec": spec, "platform_spec": platform},
        runtime_config=api.V2beta1RuntimeConfig(parameters={"seed": 7}),
        service_account="pipeline-runner",
        state="FAILED",
    )
    server.runs["by-hand"] = copy.deepcopy(run)
    ended = resume("by-hand", "--json")
    assert ended.code == 0, ended.err
    assert settings(server.runs[ended.json["id"]]) == settings(run)
    assert ended.json["version"] == ""


def test_a_dry_run_shows_the_run_and_sends_nothing(
    server: KfpServer, resume: Regraft, run_id: str
) -> None:
    posts = server.count("POST")
    shown = resume(run_id, "--dry-run", "--json").json
    assert server.count("POST") == posts
    assert (shown["resumes"], shown["experiment"]) == (run_id, "mine")
    assert (shown["service_account"], shown["pipeline_root"]) == ("runner", "s3://bucket/runs")
    assert shown["parameters"] == server.runs[run_id].runtime_config.parameters


@pytest.mark.parametrize("pattern", ["POST .*/runs$", "GET .*/runs$", "GET .*/runs/", "GET .*/v"])
@pytest.mark.parametrize(
    "fault", [Fault(503), Fault(), Fault(done=True)], ids=["503", "lost before", "lost after"]
)
def test_a_temporary_fault_creates_no_second_run(
    server: KfpServer, resume: Regraft, run_id: str, pattern: str, fault: Fault
) -> None:
    server.fail(pattern, fault)
    assert resume(run_id, "--run-name", "first").code == 0
    assert not server.faults
    assert len(server.runs) == 2


@pytest.mark.parametrize("unknown", ["no-such-run", "", ".", "../runs"])
def test_an_unknown_run_is_one_line(server: KfpServer, resume: Regraft, unknown: str) -> None:
    line = one_line(resume(unknown))
    assert f"resume: expected the ID of a run on {server.address}, found no run" in line
    assert repr(unknown) in line


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "CANCELING", None])
def test_a_run_that_has_not_ended_is_one_line(
    server: KfpServer, resume: Regraft, run_id: str, state: str | None
) -> None:
    server.runs[run_id].state = state
    server.script = [(state, [task("fine-tune", "RUNNING")])]
    line = one_line(resume(run_id, "--wait"))
    assert f"expected a run that has ended, but {run_id} is {state or 'not started'}" in line
    assert f"/#/runs/details/{run_id}" in line
    assert len(server.runs) == 1


def test_a_canceled_run_that_stays_canceling_is_resumed_when_its_steps_have_ended(
    server: KfpServer, resume: Regraft, run_id: str
) -> None:
    server.runs[run_id].state = "CANCELING"
    tasks = [task("root", "RUNNING"), task("ingest", "SUCCEEDED"), task("fine-tune", "FAILED")]
    server.script = [("CANCELING", [*tasks, task("evaluate", "")])]
    assert resume(run_id).code == 0
    assert len(server.runs) == 2


def test_a_run_of_another_pipeline_is_one_line(
    server: KfpServer, resume: Regraft, run_id: str
) -> None:
    for version in server.versions.values():
        version.pipeline_spec["pipeline_spec"]["pipelineInfo"]["name"] = "other"
    assert f"but {run_id} is of 'other'" in one_line(resume(run_id))
    assert len(server.runs) == 1


def test_a_run_of_a_deleted_version_is_one_line(
    server: KfpServer, resume: Regraft, run_id: str
) -> None:
    server.versions.clear()
    assert f"the pipeline version of the run {run_id} was deleted" in one_line(resume(run_id))


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (("digits",), "RECIPE"),
        (("--seed", "0"), "--seed"),
        (("--source", "s3://a/b.zip"), "--source"),
        (("--workers", "2"), "--workers"),
        (("--image", "a/regraft-python:2"), "--image"),
        (("--pvc", "a=/a"), "--pvc"),
        (("--hardware", ""), "--hardware"),
        (("--experiment", "regraft"), "--experiment"),
        (("--schedule", "@daily"), "--schedule"),
        (("--no-cache",), "--cache/--no-cache"),
        (("--seed", "3", "--service-account", "x"), "--service-account, --seed"),
    ],
)
def test_options_that_a_resumed_run_would_ignore_are_refused(
    server: KfpServer, resume: Regraft, arguments: tuple[str, ...], flag: str
) -> None:
    assert f"resume: expected no {flag}, because" in one_line(resume("run-1", *arguments))
    assert not server.requests


def test_a_host_is_required_even_for_a_dry_run(regraft: Regraft) -> None:
    ended = regraft("submit", "--resume", "run-1", "--dry-run")
    assert "host: expected --host" in one_line(ended)
