"""Waiting for a run on a local server of the KFP API: steps, pods that wait, failures, verdicts."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import kfp_server_api as api
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipelines.cluster.kfp_api import Client, Connection
from pipelines.cluster.run_tasks import (
    DRIVER_CAUSES,
    DRIVER_FAILED,
    failures_of,
    pending_pods,
    tasks_of,
)
from pipelines.cluster.watch import (
    Listener,
    PendingSteps,
    RunFailedError,
    RunRefusedError,
    Waiting,
    WatchedRun,
    proven_verdict,
    wait,
)
from regraft_core.formats.run_outcome import RunOutcome, write_outcome
from tests.command_line import Ended, Regraft
from tests.pipelines.cluster.kfp_server import (
    Fault,
    KfpServer,
    failed,
    frozen,
    graph,
    kfp_server,
    pod,
    ran,
    task,
    waiting,
)

RUN = WatchedRun("run-1", "http://kfp/#/runs/details/run-1", "team", "s3://m/pets/.runs/run-1.json")
ACCEPTED = RunOutcome(verdict="accepted", strategy="head", metrics={}, version=1)
REJECTED = RunOutcome(verdict="rejected", strategy="head", metrics={})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    monkeypatch.setattr("pipelines.cluster.kfp_api.MAX_WAIT_S", 0.01)
    with kfp_server() as running:
        running.runs[RUN.id] = api.V2beta1Run(run_id=RUN.id, display_name="pets")
        yield running


@pytest.fixture
def watched(server: KfpServer) -> Callable[..., SimpleNamespace]:
    """Return a function that waits for the run; its result has what was shown and noted."""

    def watch(recorded: RunOutcome | None = None, pending_s: float = 60.0) -> SimpleNamespace:
        seen = SimpleNamespace(steps=[], notes=[], verdict=None, error="", code=0, asked=0)

        def record() -> RunOutcome | None:
            seen.asked += 1
            return recorded

        client = Client(Connection(server.address, backoff_s=0.0))
        listener = Listener(seen.steps.append, seen.notes.append, record)
        settings = Waiting(poll_s=0.01, pending_s=pending_s)
        try:
            seen.verdict = wait(client, RUN, settings, listener)
        except (RunFailedError, RunRefusedError) as error:
            seen.error, seen.code = str(error), error.exit_code
        return seen

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


def test_a_failed_driver_of_kfp_is_named_if_no_step_failed() -> None:
    run = run_of("FAILED", task("iteration-driver", "FAILED"), task("for-loop-1", "FAILED"))
    assert failures_of(run) == [f"iteration-driver: {DRIVER_FAILED}{DRIVER_CAUSES}"]
    run = run_of("FAILED", task("steps-driver", "SUCCEEDED"), task("ingest", "FAILED"))
    assert failures_of(run) == ["ingest"]


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


@pytest.mark.parametrize("retries_of_all", [True, False])
def test_the_step_of_a_pending_pod_is_reported_once(
    server: KfpServer, watched: Callable[..., SimpleNamespace], retries_of_all: bool
) -> None:
    stuck = waiting("extract-features", retries_of_all=retries_of_all)
    server.script = [("RUNNING", stuck)] * 4 + ran(accepted=True)
    (note,) = watched(pending_s=0.0).notes
    assert note.startswith("extract-features: a pod is reported as pending")
    for cause in ("secret", "PVC", "container image", "GPU"):
        assert cause in note
    assert "must be in the namespace team" in note
    labels = "pipeline/runid=run-1,workflows.argoproj.io/completed=false"
    assert f"kubectl -n team describe pod -l {labels}" in note


def test_a_pod_that_waits_says_the_reason_of_kubernetes(
    server: KfpServer, watched: Callable[..., SimpleNamespace]
) -> None:
    server.script = [("RUNNING", waiting("ingest"))] * 4 + ran(accepted=True)
    server.nodes = [pod("ingest.executor(0)", "Pending", 'ImagePullBackOff: "x/regraft-python:1"')]
    (note,) = watched(pending_s=0.0).notes
    assert ' minutes: ImagePullBackOff: "x/regraft-python:1". Its events: kubectl' in note


def test_a_pod_that_starts_in_time_is_not_reported(
    server: KfpServer, watched: Callable[..., SimpleNamespace]
) -> None:
    server.script = [("RUNNING", waiting("ingest"))] * 4 + ran(accepted=True)
    assert not watched().notes


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("ingest-driver", "ingest"), ("ingest-driver(0)", "ingest"),
        ("iteration-item-driver(0)", "iteration-item-driver"), ("root-driver", "root-driver"),
        ("executor(2)", "fine-tune"), ("condition-1", None), ("publish", None),
    ],
)  # fmt: skip
def test_a_pending_pod_belongs_to_a_step(name: str, step: str | None) -> None:
    run = run_of("RUNNING", task("fine_tune", "RUNNING"), task(name, "PENDING"))
    assert pending_pods(run) == ({f"{name}-0": step} if step else {})


def test_each_pod_has_its_own_time() -> None:
    """Workers that queue for a node are not one pod that waits."""
    pending = PendingSteps(limit_s=120.0)
    step = task("extract-features", "RUNNING")
    runs = [run_of("RUNNING", step, task("executor(0)", "PENDING", number=number))
            for number in range(3)]  # fmt: skip
    assert not pending.overdue(runs[0], 0.0)
    assert not pending.overdue(runs[1], 100.0)
    assert not pending.overdue(runs[2], 200.0)
    assert not pending.overdue(runs[2], 319.0)
    assert pending.overdue(runs[2], 320.0) == ["extract-features"]
    assert not pending.overdue(runs[2], 400.0)


def test_a_failed_run_names_its_step_its_page_and_its_log(
    server: KfpServer, watched: Callable[..., SimpleNamespace]
) -> None:
    server.script = failed("train-head")
    seen = watched(recorded=ACCEPTED)
    assert seen.error.startswith("the run ended as FAILED: train-head. ")
    assert RUN.page in seen.error
    assert "kubectl -n team logs -l pipeline/runid=run-1 -c main --prefix" in seen.error
    assert "\n" not in seen.error
    assert not seen.asked
    assert [one.name for one in seen.steps[-1]][-2:] == ["train-head", "conclude"]


LAUNCHER = "E1127 06:00:00.1  33 launcher_v2.go:449] Component failed: exit status 2"


@pytest.mark.parametrize(
    ("node", "log", "reason", "code"),
    [
        (
            "train-head.executor",
            f"epoch 3\n[regraft:error:2] train_head: views: got 0\n{LAUNCHER}\n",
            "train-head: views: got 0.",
            2,
        ),
        (
            "train-head.executor",
            "[regraft:error:2] train_head: no response\n[regraft:error:137] train_head: attempt 3 "
            f"of 3 was ended by signal 9\n{LAUNCHER}",
            "train-head: attempt 3 of 3 was ended by signal 9.",
            1,
        ),
        (
            "train-head(0).executor(0)",
            f"[regraft] train_head: start\nepoch 3\n{LAUNCHER}",
            "train-head: OOMKilled (exit code 137); the last line of its log: epoch 3.",
            1,
        ),
        (
            "train-head.executor",
            "\x1b[2J3\n",
            "train-head: OOMKilled (exit code 137); the last line of its log: [2J3.",
            1,
        ),
        ("train-head.executor", None, "train-head: OOMKilled (exit code 137).", 1),
        ("evaluate.executor", "[regraft:error:2] evaluate: no", "train-head.", 1),
    ],
    ids=["error", "attempts", "killed", "control characters", "no log", "another step"],
)
def test_a_failed_run_says_why_its_pod_failed(
    server: KfpServer, watched: Callable[..., SimpleNamespace], node: str, log: str | None,
    reason: str, code: int,
) -> None:  # fmt: skip
    server.script = failed("train-head")
    server.nodes = [pod("ingest-driver", "Succeeded", ended=1),
                    pod(node, "Failed", "OOMKilled (exit code 137)", ended=2)]  # fmt: skip
    server.logs = {} if log is None else {f"regraft-{node}": log}
    seen = watched()
    assert seen.error.startswith(f"the run ended as FAILED: {reason} Logs: ")
    assert seen.error.isprintable()
    assert seen.code == code


def test_an_invalid_input_and_another_failure_are_a_failed_run(
    server: KfpServer, watched: Callable[..., SimpleNamespace]
) -> None:
    """Workers that share a step fail together, but not always for the same reason."""
    server.script = [("FAILED", [task("train-head", "FAILED"), task("fine-tune", "FAILED")])]
    server.nodes = [pod(f"{step}.executor", "Failed", ended=1)
                    for step in ("train-head", "fine-tune")]  # fmt: skip
    server.logs = {"regraft-train-head.executor": "[regraft:error:2] train_head: views: got 0",
                   "regraft-fine-tune.executor": "[regraft:error:1] fine_tune: fault"}  # fmt: skip
    seen = watched()
    assert "train-head: views: got 0; fine-tune: fault" in seen.error
    assert seen.code == 1


@pytest.mark.parametrize(
    ("log", "resumable"),
    [("epoch 3", True), ("[regraft:error:1] train_head: fault", True),
     ("[regraft:error:2] train_head: views: got 0", False)],
    ids=["pod deleted", "error", "invalid input"],
)  # fmt: skip
def test_a_failed_run_says_how_to_go_on_unless_its_input_is_invalid(
    server: KfpServer, watched: Callable[..., SimpleNamespace], log: str, resumable: bool
) -> None:
    """Without retries of Argo, a deleted pod, such as of a drained node, fails the run."""
    server.script = failed("train-head")
    server.nodes = [pod("train-head.executor", "Error", "pod deleted", ended=2)]
    server.logs = {"regraft-train-head.executor": log}
    error = watched().error
    hint = "; to repeat the run from this step: regraft submit --resume run-1"
    assert error.endswith(hint) == resumable
    assert ("--resume" in error) == resumable


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("I1127 start\nF1127 main.go:76] no access to the bucket\n",
         "main: Error (exit code 1); the last line of its log: F1127 main.go:76] no access to the "
         "bucket"),
        ('I1127 15:08:07.3 23 main.go:556] output ExecutorInput:{\n  "inputs": {}\n}\n'
         'F1127 15:08:07.3 23 main.go:127] KFP driver: driver.Container(taskName="ingest", '
         "KubernetesExecutorConfig) failed: failure while getting executionCache: refused\n",
         "failure while getting executionCache: refused"),
        ("I1127 start\nF1127 1 main.go:127] KFP driver: invalid argument\n", "invalid argument"),
    ],
    ids=["another version", "after its input", "without arguments"],
)  # fmt: skip
def test_a_failed_driver_says_the_error_in_its_log(
    server: KfpServer, watched: Callable[..., SimpleNamespace], log: str, reason: str
) -> None:
    """The log of KFP 2.17.0 has its inputs as JSON, in lines of their own."""
    server.script = failed("ingest-driver")
    server.nodes = [pod("ingest-driver", "Failed", "main: Error (exit code 1)", ended=1)]
    server.logs = {"regraft-ingest-driver": log}
    assert f"FAILED: ingest: {DRIVER_FAILED}: {reason}. Logs: " in watched().error


def test_a_failed_driver_without_a_log_has_its_usual_causes(
    server: KfpServer, watched: Callable[..., SimpleNamespace]
) -> None:
    server.script = failed("ingest-driver")
    server.nodes = []
    assert f"FAILED: ingest: {DRIVER_FAILED}{DRIVER_CAUSES}. Logs: " in watched().error


def test_the_reason_is_that_of_the_last_attempt_of_a_step_that_failed(
    server: KfpServer, watched: Callable[..., SimpleNamespace]
) -> None:
    server.script = failed("train-head")
    server.nodes = [
        pod("train-head.executor(1)", "Failed", "second", ended=9),
        pod("train-head.executor(0)", "Failed", "first", ended=8),
        pod("ingest.executor(0)", "Failed", "retried", ended=1),
        pod("ingest.executor(1)", "Succeeded", ended=2),
    ]
    assert "FAILED: train-head: second. Logs" in watched().error


def test_a_canceled_run_is_said_to_be_canceled(
    server: KfpServer, watched: Callable[..., SimpleNamespace]
) -> None:
    server.script = [("CANCELING", waiting("ingest")), ("FAILED", failed("ingest")[-1][1])]
    error = watched().error
    assert error.startswith(f"the run was canceled; its page: {RUN.page}")
    assert error.endswith("to continue it: regraft submit --resume run-1")


def test_a_run_that_was_canceled_between_two_reports_is_said_to_be_canceled(
    server: KfpServer, watched: Callable[..., SimpleNamespace]
) -> None:
    """Its last step fails as well, because the deadline of the run has passed."""
    server.script = failed("ingest")
    server.canceled = True
    last = pod("onExit.conclude-driver", "Failed", "Step exceeded its deadline", ended=2)
    server.nodes = [pod("ingest.executor", "Error", "pod deleted", ended=1), last]
    assert watched().error.startswith("the run was canceled; its page: ")


@pytest.mark.parametrize("known", [True, False])
def test_the_end_of_a_run_is_told_as_its_last_step_reports_it(
    server: KfpServer, watched: Callable[..., SimpleNamespace], known: bool
) -> None:
    server.script = ran(accepted=True)
    server.nodes = [pod("onExit.conclude-driver", "Succeeded", ended=1),
                    pod("onExit.conclude.executor(0)", "Succeeded", ended=2)]  # fmt: skip
    text = "# Accepted, no new version: `/models/m/10` has this model already."
    log = f"[regraft] conclude: start\n[regraft] {text}\n[regraft] conclude: done\n{LAUNCHER}"
    if known:
        server.logs = {"regraft-onExit.conclude.executor(0)": log}
    seen = watched()
    assert seen.verdict == "accepted"
    assert seen.notes == ([text.removeprefix("# ")] if known else [])


@pytest.mark.parametrize("outcome", [ACCEPTED, REJECTED], ids=["accepted", "rejected"])
def test_a_run_with_frozen_details_has_the_recorded_verdict(
    server: KfpServer, watched: Callable[..., SimpleNamespace], outcome: RunOutcome
) -> None:
    server.script = frozen()
    seen = watched(recorded=outcome)
    assert seen.verdict == outcome.verdict
    (note,) = seen.notes
    assert note.endswith(f"the verdict is from {RUN.record}")


LARGE = [graph("record-verdict", "Succeeded"), pod("record-verdict.executor", "Succeeded", ended=1)]


@pytest.mark.parametrize(
    ("nodes", "verdict"),
    [
        ([graph("condition-1", "Succeeded"), graph("publish", "Succeeded")], "accepted"),
        ([graph("condition-1", "Skipped"), graph("publish", "Omitted")], "rejected"),
    ],
)
def test_a_run_with_frozen_details_has_the_verdict_of_argo(
    server: KfpServer, watched: Callable[..., SimpleNamespace], nodes: list[Any], verdict: str
) -> None:
    """No access to the destination is needed; a PVC is in the cluster only."""
    server.script = frozen()
    server.nodes, server.compress = [*LARGE, *nodes], gzip.compress
    seen = watched()
    assert seen.verdict == verdict
    assert not seen.asked
    assert "condition-1" not in [one.name for one in seen.steps[-1]]
    assert ("publish" in [one.name for one in seen.steps[-1]]) == (verdict == "accepted")
    assert seen.steps[-1][0].seconds == 1.0
    (note,) = seen.notes
    assert note.startswith("the server stopped reporting the steps of this large run")


def test_a_run_with_frozen_details_is_shown_while_it_continues(
    server: KfpServer, watched: Callable[..., SimpleNamespace]
) -> None:
    (running, ended) = frozen()
    server.script = [running] * 4 + [ended]
    server.compress = gzip.compress
    server.nodes = [*LARGE, graph("export", "Running")]

    def go_on() -> None:
        """The next step starts, and the server does not report it."""
        if server.count("GET /apis/v2beta1/runs/") > 3:
            server.nodes = [*LARGE, graph("export", "Succeeded"), graph("publish", "Succeeded")]

    server.on_get_run = go_on
    seen = watched(pending_s=0.0)
    shown = [[f"{one.name} {one.state}" for one in steps][-1] for steps in seen.steps]
    assert shown[:2] == ["export RUNNING"] * 2
    assert shown[-1] == "publish SUCCEEDED"
    assert seen.verdict == "accepted"
    assert len(seen.notes) == 1


def test_a_step_that_failed_after_the_details_were_frozen_is_named(
    server: KfpServer, watched: Callable[..., SimpleNamespace]
) -> None:
    server.script = frozen()
    killed = pod("export.executor", "Error", "pod deleted", ended=3)
    server.nodes = [*LARGE, graph("export", "Error"), killed]
    server.compress = gzip.compress
    seen = watched(recorded=ACCEPTED)
    assert seen.verdict is None
    start = "the gate accepted the model, but export failed: the run ended as FAILED: export: pod"
    assert seen.error.startswith(start)


@pytest.mark.parametrize("damage", [lambda data: data, lambda data: gzip.compress(data)[:20]])
def test_damaged_nodes_are_no_verdict(
    server: KfpServer, watched: Callable[..., SimpleNamespace], damage: Callable[[bytes], bytes]
) -> None:
    server.script = frozen()
    server.nodes, server.compress = [graph("publish", "Succeeded")], damage
    assert watched().error.startswith("verdict unknown")


def test_a_record_without_a_version_is_no_success(
    server: KfpServer, watched: Callable[..., SimpleNamespace]
) -> None:
    server.script = frozen()
    seen = watched(recorded=ACCEPTED.model_copy(update={"version": None}))
    assert seen.verdict is None
    assert seen.error.startswith("the gate accepted the model, but it was not published")


@pytest.mark.parametrize(
    ("tasks", "verdict"),
    [
        ([task("record-verdict", "SUCCEEDED"), task("condition-1", "SKIPPED")], "rejected"),
        ([task("record-verdict", "SUCCEEDED"), task("condition-1", "")], None),
        ([task("record-verdict", "SUCCEEDED"), task("condition-1-driver", "SKIPPED")], None),
        ([task("record-verdict", ""), task("condition-1", "SKIPPED")], None),
        ([task("publish", "SUCCEEDED")], "accepted"),
        ([], None),
    ],
)
def test_only_what_is_reported_proves_a_verdict(tasks: list[Any], verdict: str | None) -> None:
    assert proven_verdict(run_of("SUCCEEDED", *tasks)) == verdict


def test_an_unknown_verdict_names_the_record_and_the_page(
    server: KfpServer, watched: Callable[..., SimpleNamespace]
) -> None:
    server.script = frozen()
    seen = watched()
    assert seen.asked == 1
    assert seen.error.startswith("verdict unknown")
    assert RUN.record in seen.error
    assert RUN.page in seen.error
    assert "\n" not in seen.error


def test_a_reported_verdict_needs_no_record(
    server: KfpServer, watched: Callable[..., SimpleNamespace]
) -> None:
    server.script = ran(accepted=False)
    seen = watched(recorded=ACCEPTED)
    assert (seen.verdict, seen.asked) == ("rejected", 0)


@pytest.fixture(params=["folder", "bucket"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The destination of a run, which this machine can read."""
    if request.param == "folder":
        return str(tmp_path / "models")
    request.getfixturevalue("s3")

    bucket = f"watched-{abs(hash(str(tmp_path))) % 10**9}"
    fsspec.filesystem("s3").mkdir(bucket)
    return f"s3://{bucket}/models"


def submit(regraft: Regraft, server: KfpServer, destination: str) -> Ended:
    server.runs.clear()
    server.script = frozen()
    server.requests_of_run.clear()
    pvc = [] if "://" in destination else ["--pvc", f"models={destination}"]
    return regraft("submit", "digits", "--host", server.address, "--poll-s", "0.01", "--wait",
                   "--destination", destination, *pvc)  # fmt: skip


def test_submit_reads_the_verdict_at_the_destination(
    server: KfpServer, regraft: Regraft, destination: str
) -> None:
    unknown = submit(regraft, server, destination)
    assert unknown.code == 1
    assert f"{destination}/digits/.runs/run-1.json" in unknown.err.splitlines()[-1]
    write_outcome(destination, "digits", "run-1", ACCEPTED)
    assert submit(regraft, server, destination).code == 0
    write_outcome(destination, "digits", "run-1", REJECTED)
    assert submit(regraft, server, destination).code == 3


def test_a_record_that_cannot_be_read_leaves_the_verdict_unknown(
    server: KfpServer, regraft: Regraft, tmp_path: Path
) -> None:
    record = tmp_path / "digits" / ".runs" / "run-1.json"
    record.parent.mkdir(parents=True)
    record.write_text("{")
    ended = submit(regraft, server, str(tmp_path))
    assert ended.code == 1
    assert "verdict unknown" in ended.err.splitlines()[-1]


class DeniedStore(MemoryFileSystem):
    """A store that logs each attempt before it raises its own error, as gcsfs does."""

    protocol = "denied"

    def cat_file(self, *_: Any, **__: Any) -> bytes:
        logging.getLogger("denied").error("attempt 1")
        raise PermissionError("no credentials")


def test_a_store_without_access_leaves_the_verdict_unknown_and_prints_no_log(
    server: KfpServer, regraft: Regraft, caplog: pytest.LogCaptureFixture
) -> None:
    fsspec.register_implementation("denied", DeniedStore, clobber=True)
    ended = submit(regraft, server, "denied://bucket/models")
    assert ended.code == 1
    assert "verdict unknown" in ended.err.splitlines()[-1]
    assert not [one for one in caplog.records if one.name == "denied"]
    assert logging.getLogger("denied").isEnabledFor(logging.ERROR)
