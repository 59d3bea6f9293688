"""Waits for a run on a server: the state of each step, pods that wait, and the verdict.

KFP has no verdict: a rejected run also ends as SUCCEEDED. Only what the server reports proves a
verdict: a `publish` that SUCCEEDED that the model was accepted, and a condition that was SKIPPED
after `record-verdict` that it was rejected. What it does not report proves nothing: the details of
a large run stop changing (KFP 2.17.0), and a run with a failed step ends as SUCCEEDED too, because
`conclude` follows and succeeds. The states of a large run are read from Argo's workflow, if the
server has it. If neither is reported, the caller may know the verdict from the run's record at the
destination.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from kfp_server_api import V2beta1RunDetails

from pipelines.cluster.kfp_api import (
    AccessError,
    Client,
    NoResponseError,
    SubmissionError,
    UnreachableError,
)
from pipelines.cluster.pod_reports import (
    compressed_tasks,
    conclusion_of,
    failures_in_logs,
    waiting_reason,
    was_canceled,
)
from pipelines.cluster.run_tasks import (
    DRIVER_CAUSES,
    Task,
    error_of,
    failed_release,
    failures_of,
    has_ended,
    pending_pods,
    tasks_of,
    was_rejected,
)
from regraft_core.formats.run_outcome import RunOutcome
from regraft_core.runtime.errors import InputError, RegraftError, RejectedError

LARGE_RUN = "the server stopped reporting the steps of this large run"
SETTLE_S = 1.0  # a server of KFP 2.17.0 writes the state of a run before those of its tasks
Verdict = Literal["accepted", "rejected"]


@dataclass(frozen=True)
class Waiting:
    """Time limit, interval of requests, and the longest outage of the server to tolerate.

    A pod that is pending for longer than `pending_s` is reported, and a run of which nothing has
    changed for this time is looked up in Argo's workflow.
    """

    deadline_s: float = 86_400.0
    poll_s: float = 5.0
    outage_s: float = 600.0
    pending_s: float = 120.0


@dataclass(frozen=True)
class WatchedRun:
    """A run, and where its user can look: its page, its pods and its record.

    `record` is the path or URI of the file with its verdict.
    """

    id: str
    page: str
    namespace: str
    record: str

    def kubectl_logs(self) -> str:
        """Return the command for the last lines of all steps."""
        return (f"kubectl -n {self.namespace} logs -l pipeline/runid={self.id} -c main --prefix "
                "--tail=30")  # fmt: skip

    def kubectl_describe(self) -> str:
        """Return the command for the events of the pods that have not ended."""
        return (f"kubectl -n {self.namespace} describe pod -l pipeline/runid={self.id},"
                "workflows.argoproj.io/completed=false")  # fmt: skip

    def resume_command(self) -> str:
        """Return the command that repeats the run, without the options of the connection."""
        return f"regraft submit --resume {self.id}"


@dataclass(frozen=True)
class Listener:
    """Functions that are called while waiting.

    `show` gets the steps after each request, and `note` lines about pods that wait and about the
    end of the run. `recorded` returns the record that the run left at the destination, or None if
    this machine has none.
    """

    show: Callable[[list[Task]], None]
    note: Callable[[str], None]
    recorded: Callable[[], RunOutcome | None]


class RunFailedError(RegraftError):
    """The run ended without a verdict."""


class RunRefusedError(InputError):
    """The run ended without a verdict, because a step found an invalid input."""


class PendingSteps:
    """Finds the steps whose pods are pending for too long; each is reported once."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since: dict[str, float] = {}
        self._reported: set[str] = set()

    def overdue(self, run: Any, now_s: float) -> list[str]:
        """Return the steps to report at a time."""
        pods = pending_pods(run)
        self._since = {task: self._since.get(task, now_s) for task in pods}
        late = {pods[task] for task, start in self._since.items() if now_s - start >= self._limit_s}
        late -= self._reported
        self._reported |= late
        return sorted(late)


class LargeRun:
    """Reads the states of the steps from Argo's workflow if the server stopped reporting them.

    It checks this at the end of the run, and whenever no state has changed for `limit_s`.
    """

    def __init__(self, client: Client, note: Callable[[str], None], limit_s: float) -> None:
        self._client, self._note, self._limit_s = client, note, limit_s
        self._reported: list[Any] = []
        self._since = 0.0
        self._tasks: list[Any] = []

    def current(self, run: Any, now_s: float, *, last: bool = False) -> Any:
        """Return the run with the current states of its steps at a time."""
        reported = [(task.name, task.state) for task in tasks_of(run)]
        if reported != self._reported:
            self._reported, self._since, self._tasks = reported, now_s, []
        if last or now_s - self._since >= self._limit_s:
            self._since, known = now_s, self._tasks
            self._tasks = compressed_tasks(self._client, run.run_id) or known
            if self._tasks and not known:
                self._note(f"{LARGE_RUN}; their states are from Argo's workflow")
        if self._tasks:
            run.run_details = V2beta1RunDetails(task_details=self._tasks)
        return run


def wait(client: Client, run: WatchedRun, waiting: Waiting, listener: Listener) -> Verdict:
    """Wait for the end of a run.

    Raises:
        RunFailedError: the run ended without a verdict.
        RunRefusedError: the same, because a step found an invalid input.
        SubmissionError: the server did not respond for too long, or the time limit passed. The run
            continues.
        AccessError: the token has expired. The run continues.
    """
    start = last_response = time.monotonic()
    pending = PendingSteps(waiting.pending_s)
    large = LargeRun(client, listener.note, waiting.pending_s)
    while True:
        try:
            state = client.get_run(run.id)
            last_response = time.monotonic()
        except (NoResponseError, UnreachableError) as error:
            if time.monotonic() - last_response >= waiting.outage_s:
                raise SubmissionError(f"{error}; the run {run.id} continues") from None
        except AccessError as error:
            raise AccessError(f"{error}; the run {run.id} continues") from None
        else:
            state = large.current(state, last_response)
            listener.show(tasks_of(state))
            if has_ended(state):
                state = large.current(_settled(client, state, waiting), time.monotonic(), last=True)
                listener.show(tasks_of(state))
                return _verdict(client, state, run, listener)
            for step in pending.overdue(state, last_response):
                reason = waiting_reason(client, run.id, step)
                listener.note(_pending_note(step, run, waiting.pending_s, reason))
        if time.monotonic() - start >= waiting.deadline_s:
            raise SubmissionError(
                f"the run {run.id} has not ended within {waiting.deadline_s:g} s; it continues"
            )
        threading.Event().wait(waiting.poll_s)


def proven_verdict(state: Any) -> Verdict | None:
    """Return the verdict that the steps of a run prove, or None."""
    if any(task.name == "publish" and task.state == "SUCCEEDED" for task in tasks_of(state)):
        return "accepted"
    return "rejected" if was_rejected(state) else None


def check_failure(client: Client, state: Any, run: WatchedRun) -> None:
    """Raise an error if a run that has ended was canceled or failed.

    Raises:
        RunFailedError: with the steps that failed, how to read their logs, and how to go on.
        RunRefusedError: the same, if the logs say that the input of each was invalid.
    """
    # KFP 2.17.0 ends a canceled run as FAILED; usually its history shows the cancellation.
    history = [one.state for one in state.state_history or ()]
    canceled = state.state == "CANCELED" or "CANCELING" in history
    failures = failures_of(state)
    if state.state == "SUCCEEDED" and not failures and not canceled:
        return
    if canceled or was_canceled(client, run.id):
        raise RunFailedError(
            f"the run was canceled; its page: {run.page}; to continue it: {run.resume_command()}"
        )
    ended = "FAILED" if state.state == "SUCCEEDED" else state.state
    logged = failures_in_logs(client, run.id)
    found = [(failure, logged.get(_step_of(failure))) for failure in failures]
    cause = "; ".join(f"{failure.removesuffix(DRIVER_CAUSES)}: {log.reason}" if log else failure
                      for failure, log in found)  # fmt: skip
    cause = cause or error_of(state)
    if cause == "resolve":  # the server has no message, and the log has exactly one
        cause = "resolve: usually an invalid option, or no access to a location; its log names it"
    step = failed_release(state)
    accepted = f"the gate accepted the model, but {step} failed: " if step else ""
    refused = found and all(log and log.code == InputError.exit_code for _, log in found)
    text = (f"{accepted}the run ended as {ended}{f': {cause}' if cause else ''}. Logs: click the "
            f"step on {run.page}, or: {run.kubectl_logs()}")  # fmt: skip
    if refused:  # the same input would be refused again
        raise RunRefusedError(text)
    raise RunFailedError(f"{text}; to repeat the run from this step: {run.resume_command()}")


def raise_if_rejected(verdict: Verdict, page: str) -> None:
    """Raise an error if the verdict is `rejected`.

    Raises:
        RejectedError: the gate rejected the model.
    """
    if verdict == "rejected":
        raise RejectedError(f"the gate rejected the model; the report has its checks: {page}")


def _settled(client: Client, state: Any, waiting: Waiting) -> Any:
    """Request an ended run once more; return the earlier response if this one is lost."""
    threading.Event().wait(min(waiting.poll_s, SETTLE_S))
    with contextlib.suppress(RegraftError):
        return client.get_run(state.run_id)
    return state


def _step_of(failure: str) -> str:
    return re.split("[ :]", failure, maxsplit=1)[0].removesuffix("-driver")


def _verdict(client: Client, state: Any, run: WatchedRun, listener: Listener) -> Verdict:
    check_failure(client, state, run)
    if verdict := proven_verdict(state):
        if conclusion := conclusion_of(client, run.id):
            listener.note(conclusion)
        return verdict
    outcome = listener.recorded()
    if outcome is None:
        raise RunFailedError(
            "verdict unknown: the run ended as SUCCEEDED, but the server reported neither "
            "`publish` as done nor its condition as skipped. See "
            f"{run.record}, or the output of `conclude` on {run.page}"
        )
    if outcome.accepted_only:
        raise RunFailedError(
            "the gate accepted the model, but it was not published: a later step failed, which "
            f"the server did not report. Logs: {run.page}, or: {run.kubectl_logs()}; to repeat "
            f"the run from this step: {run.resume_command()}"
        )
    listener.note(f"{LARGE_RUN}; the verdict is from {run.record}")
    return outcome.verdict


def _pending_note(step: str, run: WatchedRun, pending_s: float, reason: str) -> str:
    causes = reason or (
        f"usually a missing secret or PVC (both must be in the namespace {run.namespace}), a "
        "container image that cannot be pulled (or is large), no node with free CPU, memory or GPU"
    )
    return (
        f"{step}: a pod is reported as pending for {pending_s / 60:.0f} minutes: {causes}. Its "
        f"events: {run.kubectl_describe()}"
    )
