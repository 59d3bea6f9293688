"""Waiting for a run on a local server of the KFP API: the steps that are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import kfp_server_api as api
import pytest

from pipelines.cluster.kfp_api import Client, Connection
from pipelines.cluster.run_tasks import Task, tasks_of
from pipelines.cluster.watch import Waiting, wait
from tests.pipelines.cluster.kfp_server import Fault, KfpServer, kfp_server, ran, task

RUN_ID = "run-1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    monkeypatch.setattr("pipelines.cluster.kfp_api.MAX_WAIT_S", 0.01)
    with kfp_server() as running:
        running.runs[RUN_ID] = api.V2beta1Run(run_id=RUN_ID, display_name="pets")
        yield running


@pytest.fixture
def watched(server: KfpServer) -> Callable[[], SimpleNamespace]:
    """Return a function that waits for the run; its result has what was shown."""

    def watch() -> SimpleNamespace:
        steps: list[list[Task]] = []
        client = Client(Connection(server.address, backoff_s=0.0))
        verdict = wait(client, RUN_ID, steps.append, Waiting(poll_s=0.01))
        return SimpleNamespace(steps=steps, verdict=verdict)

    return watch


def run_of(state: str, *tasks: Any) -> api.V2beta1Run:
    return api.V2beta1Run(state=state, run_details=api.V2beta1RunDetails(task_details=[*tasks]))


@pytest.mark.parametrize("state", ["", "SKIPPED", "PENDING"])
def test_omitted_steps_of_an_ended_run_are_not_shown(state: str) -> None:
    run = run_of("SUCCEEDED", task("evaluate", "SUCCEEDED"), task("publish", state))
    assert [one.name for one in tasks_of(run)] == ["evaluate"]


def test_a_step_that_waits_is_shown_while_the_run_is_active() -> None:
    assert [one.state for one in tasks_of(run_of("RUNNING", task("ingest", "PENDING")))] == [
        "PENDING"
    ]


def test_a_failed_driver_is_its_step_although_the_step_is_omitted() -> None:
    run = run_of("FAILED", task("ingest-driver", "FAILED"), task("ingest", ""))
    assert [(one.name, one.state) for one in tasks_of(run)] == [("ingest", "FAILED")]


def test_the_last_states_are_those_after_the_end(
    server: KfpServer, watched: Callable[..., SimpleNamespace]
) -> None:
    """A server may report the end of a run before the end of its last step."""
    *_, (_, tasks) = ran(accepted=True)
    early = [task("conclude", "RUNNING") if one.display_name == "conclude" else one
             for one in tasks]  # fmt: skip
    server.script = [("SUCCEEDED", early), ("SUCCEEDED", tasks)]
    seen = watched()
    assert seen.verdict == "accepted"
    assert seen.steps[0][-1].state == "RUNNING"
    assert seen.steps[-1][-1].state == "SUCCEEDED"


def test_a_lost_response_after_the_end_is_no_error(
    server: KfpServer, watched: Callable[..., SimpleNamespace]
) -> None:
    *_, (_, tasks) = ran(accepted=True)
    server.script = [("SUCCEEDED", tasks)]
    server.on_get_run = lambda: server.fail("GET .*/runs/run", *[Fault(503)] * 9)
    assert watched().verdict == "accepted"
