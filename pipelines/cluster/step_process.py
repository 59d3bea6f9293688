"""Runs one step in a pod, and repeats it if it fails.

    python -P -m pipelines.cluster.step_process STEP EXECUTOR_INPUT

kfp would put a copy of each component's code into the compiled pipeline, and Argo copies it again
into each node of a run. So the component is that of the container image.

KFP's own retries are not used: with the settings that KFP 2.17.0 installs, Argo does not repeat a
step that ends with an exit code, elsewhere it repeats a step whatever its error, and its node for
them takes another copy of the step's specification. Here each attempt is a process of its own, so
it starts without the GPU memory, worker processes and temporary files of the one before. All write
to the same log. A pod that is lost, such as with its node, is not repeated here, but by Argo if its
settings say so.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.cluster.ray_connection import ray_variables
from pipelines.cluster.retry_policy import RETRY_POLICIES, RetryPolicy
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.step_reports import EVENTS_VARIABLE, log_error, log_progress

COMPONENT = "pipelines.cluster.step_component"
STOP_S = 10.0  # from SIGTERM to SIGKILL; Kubernetes itself waits 30 s


@dataclass(frozen=True)
class Attempt:
    """How an attempt ended: its exit code, why, and whether another one may succeed.

    `reported` tells whether the step itself has reported an error.
    """

    code: int
    reason: str
    may_pass: bool = True
    reported: bool = False


def run_step(step: str, command: list[str], policy: RetryPolicy) -> int:
    """Run a command until it succeeds or its retries are used; return its exit code.

    An attempt that has reported an invalid input is not repeated.
    """
    for number in range(policy.retries + 1):
        ended = run_attempt(command, policy.timeout_s)
        if ended.code == 0:
            return 0
        name = f"{step}: attempt {number + 1} of {policy.retries + 1} {ended.reason}"
        if number == policy.retries or not ended.may_pass:
            if not ended.reported:
                log_error(ended.code, name)
            return ended.code
        # Workers that failed together, such as by a store, do not all return together.
        wait_s = policy.wait_s(number) * random.uniform(0.5, 1.0)  # noqa: S311
        log_progress(f"{name}; the next one starts in {wait_s:.0f} s")
        threading.Event().wait(wait_s)
    raise AssertionError("a policy has at least one attempt")


def run_attempt(command: list[str], limit_s: float) -> Attempt:
    """Run a command in a process group, with its own temporary folder and a time limit."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        events = Path(folder, "events.jsonl")
        events.touch()
        environment = {**os.environ, "TMPDIR": folder, EVENTS_VARIABLE: str(events)}
        with _process_group(command, environment) as process:
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return Attempt(1, f"has not ended within {limit_s:g} s")
        if code < 0:
            why = ", usually because memory ran out" if code == -signal.SIGKILL else ""
            name = f"signal {-code} ({signal.strsignal(-code)})"
            return Attempt(128 - code, f"was ended by {name}{why}")
        error = _error_in(events)
        reason = f"ended with exit code {code}"
        return Attempt(code, reason, error.get("may_pass", True), reported=bool(error))


@contextlib.contextmanager
def _process_group(command: list[str], environment: dict[str, str]) -> Iterator[Any]:
    """Yield a process, whose group is ended with the block; what it started may outlive it."""
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            # A process with much memory, such as of a GPU, ends some time after it was killed.
            deadline = time.monotonic() + STOP_S
            while _is_running(process.pid) and time.monotonic() < deadline:
                threading.Event().wait(0.02)


def _is_running(group: int) -> bool:
    """Return whether a process of a group has not ended, whether or not its parent has noticed."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended since
            # The name of the program, in parentheses, can contain anything.
            state, _, its_group = path.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def _error_in(events: Path) -> dict[str, Any]:
    """Return the error that the step has reported, or an empty dict."""
    found: dict[str, Any] = {}
    for line in events.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):  # it was killed while it wrote
            event = json.loads(line)
            if event["event"] == "error":
                found = event
    return found


def _stop(number: int, _: object) -> None:
    """End with the process group of the attempt, which does not get the signals of this one."""
    raise SystemExit(128 + number)


def main(step: str, executor_input: str) -> int:
    """Run a step with its retries; return its exit code."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        os.environ.update(ray_variables(os.environ))
    except RegraftError as error:
        log_error(error.exit_code, f"{step}: {error}")
        return error.exit_code
    command = [sys.executable, "-P", "-m", COMPONENT, step, executor_input]
    return run_step(step, command, RETRY_POLICIES[step])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
