"""A step is repeated in its pod, each attempt in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.cluster.retry_policy import RETRY_POLICIES, RetryPolicy
from pipelines.cluster.step_component import run_component
from pipelines.cluster.step_process import run_step

POLICY = RetryPolicy(retries=2, timeout_s=60, first_wait_s=0)
ATTEMPT = """
import os, signal, subprocess, sys, tempfile, time
from pathlib import Path
from regraft_core.runtime.errors import *
from regraft_core.runtime.step_reports import run_step
folder = Path(sys.argv[1])
number = len(list(folder.glob("attempt-*"))) + 1
(folder / f"attempt-{number}").write_text(tempfile.gettempdir())
Path(tempfile.mkdtemp(), "left").touch()
"""
Steps = Callable[..., int]


@pytest.fixture
def step(tmp_path: Path) -> Steps:
    """Run a step whose attempts execute some code; return its exit code."""

    def run(code: str, policy: RetryPolicy = POLICY) -> int:
        return run_step("ingest", command(code, tmp_path), policy)

    return run


def command(code: str, folder: Path) -> list[str]:
    return [sys.executable, "-c", ATTEMPT + code, str(folder)]


def attempts(folder: Path) -> list[str]:
    """Return the temporary folders of the attempts so far."""
    return [one.read_text() for one in sorted(folder.glob("attempt-*"))]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def is_alive(pid: int) -> bool:
    """Return whether a process exists that is not only waiting to be reaped."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_step_that_fails_is_repeated_until_it_succeeds(
    step: Steps, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "with run_step('ingest'):\n    assert number == 3, f'attempt {number} of the test'"
    assert step(code) == 0
    folders = attempts(tmp_path)
    assert len(set(folders)) == 3
    assert not any(Path(one).exists() for one in folders), "files of an attempt do not remain"
    lines = capfd.readouterr().out.splitlines()
    errors = [line for line in lines if line.startswith("[regraft:error:1] ")]
    assert errors == [f"[regraft:error:1] ingest: AssertionError: attempt {number} of the test"
                      for number in (1, 2)]  # fmt: skip
    waits = [line for line in lines if "the next one starts in 0 s" in line]
    assert waits[0] == ("[regraft] ingest: attempt 1 of 3 ended with exit code 1; the next one "
                        "starts in 0 s")  # fmt: skip
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("error", "count"),
    [("InputError('no')", 1), ("DataError('no')", 1), ("UnavailableError('away')", 3)],
)
def test_an_invalid_input_is_not_repeated(
    step: Steps, tmp_path: Path, capfd: pytest.CaptureFixture[str], error: str, count: int
) -> None:
    assert step(f"with run_step('ingest'):\n    raise {error}") == 2
    assert len(attempts(tmp_path)) == count
    last = capfd.readouterr().out.splitlines()[-1]
    assert last.startswith("[regraft:error:2] ingest: "), "nothing follows the step's own error"


def test_the_cause_of_an_error_decides(step: Steps, tmp_path: Path) -> None:
    """A message is often repeated with the name of the option, such as `champion: ...`."""
    raising = "with run_step('ingest'):\n    raise InputError('champion') from "
    assert step(raising + "UnavailableError('away')") == 2
    assert len(attempts(tmp_path)) == 3
    assert step(raising + "FileNotFoundError('away')") == 2
    assert len(attempts(tmp_path)) == 4


def test_a_killed_attempt_is_repeated_and_the_last_one_is_said(
    step: Steps, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert step("os.kill(os.getpid(), signal.SIGKILL)") == 128 + signal.SIGKILL
    assert len(attempts(tmp_path)) == 3
    assert capfd.readouterr().out.splitlines()[-1] == (
        "[regraft:error:137] ingest: attempt 3 of 3 was ended by signal 9 (Killed), usually "
        "because memory ran out"
    )


def test_an_attempt_has_a_time_limit_and_leaves_no_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    waiting = ["sh", "-c", f"sleep 600 & echo $! > {tmp_path}/worker-$$; wait"]
    assert run_step("ingest", waiting, RetryPolicy(retries=1, timeout_s=1, first_wait_s=0)) == 1
    assert "[regraft:error:1] ingest: attempt 2 of 2 has not ended within 1 s" in (
        capfd.readouterr().out
    )
    workers = [int(one.read_text()) for one in tmp_path.glob("worker-*")]
    assert len(workers) == 2
    assert not any(is_alive(one) for one in workers)


def test_a_worker_that_outlives_its_attempt_is_ended(step: Steps, tmp_path: Path) -> None:
    """It would keep memory and ports, and the pod's output open; much memory is freed slowly."""
    code = """
big = "memory = bytearray(500_000_000); print(flush=True); import time; time.sleep(600)"
worker = subprocess.Popen([sys.executable, "-c", big], stdout=subprocess.PIPE)
worker.stdout.readline()
(folder / "worker").write_text(str(worker.pid))
os._exit(0)
"""
    assert step(code) == 0
    assert not is_alive(int((tmp_path / "worker").read_text()))


@pytest.mark.parametrize("when", ["attempt", "wait"])
def test_a_stopped_pod_ends_its_attempt(tmp_path: Path, when: str) -> None:
    code = "time.sleep(600)" if when == "attempt" else "sys.exit(1)"
    outer = ("import signal, sys\nfrom pipelines.cluster import step_process\n"
             "from pipelines.cluster.retry_policy import RetryPolicy\n"
             "signal.signal(signal.SIGTERM, step_process._stop)\n"
             "policy = RetryPolicy(retries=1, timeout_s=600, first_wait_s=600)\n"
             f"sys.exit(step_process.run_step('ingest', {command(code, tmp_path)!r}, policy))"
             )  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True) as pod:
        if when == "attempt":
            wait_for(lambda: bool(attempts(tmp_path)))
        else:
            assert pod.stdout is not None
            assert "the next one starts in" in pod.stdout.readline()
        pod.send_signal(signal.SIGTERM)
        assert pod.wait(30) == 128 + signal.SIGTERM
    assert len(attempts(tmp_path)) == 1
    running = Path("/proc").glob("[0-9]*/cmdline")
    assert not any(os.fsencode(tmp_path) in _read(one) for one in running)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # the process has ended


def test_an_attempt_starts_without_the_outputs_of_the_one_before(tmp_path: Path) -> None:
    outcome = tmp_path / "outcome"
    for folder in (outcome, tmp_path / ".outcome.x1"):
        (folder / "shards").mkdir(parents=True)
    (tmp_path / "executor-logs").write_text("the launcher's")
    artifacts = {name: {"artifacts": [{"name": name, "uri": str(tmp_path / name),
                                       "type": {"schemaTitle": "system.Artifact"}}]}
                 for name in ("outcome", "executor-logs")}  # fmt: skip
    given = {
        "inputs": {"parameterValues": {"run_id": "run-1", "destination": str(tmp_path / "models"),
                                       "model_name": "pets"}},
        "outputs": {"outputFile": str(tmp_path / "output.json"), "artifacts": artifacts},
    }  # fmt: skip
    run_component("conclude", json.dumps(given))
    assert outcome.read_text().startswith("# No verdict")
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "executor-logs", "outcome", "output.json",
    ]  # fmt: skip
    assert (tmp_path / "executor-logs").read_text() == "the launcher's"


def test_every_step_but_the_first_has_retries_with_growing_waits() -> None:
    assert RETRY_POLICIES["resolve"].retries == 0, "an invalid input stays invalid"
    assert all(one.retries for step, one in RETRY_POLICIES.items() if step != "resolve")
    policy = RetryPolicy(retries=3, timeout_s=100, first_wait_s=30)
    assert [policy.wait_s(number) for number in range(3)] == [30, 60, 120]
    assert policy.total_s == 4 * 100 + 210


def test_a_step_that_cannot_reach_its_ray_cluster_ends_with_one_line() -> None:
    command = [sys.executable, "-P", "-m", "pipelines.cluster.step_process", "ingest", "{}"]
    paths = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": paths, "REGRAFT_RAY_RUN": "run-1"}
    environment.pop("KUBERNETES_SERVICE_HOST", None)
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert "ingest: ray_nodes: expected a pod with the token of a service account" in line
