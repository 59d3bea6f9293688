"""Waits for a run on a server: the state of each step, and the verdict.

KFP has no verdict: a rejected run also ends as SUCCEEDED. Each end of the gate has a step of its
own, and only a step that SUCCEEDED proves a verdict: `publish` that the model was accepted,
`record-rejection` that it was rejected. What the server does not report proves nothing: the details
of a large run stop changing (KFP 2.17.0), and a run with a failed step ends as SUCCEEDED too,
because `conclude` follows and succeeds.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.cluster.kfp_api import (
    AccessError,
    Client,
    NoResponseError,
    SubmissionError,
    UnreachableError,
)
from pipelines.cluster.run_tasks import FAILED, Task, error_of, has_ended, tasks_of
from regraft_core.runtime.errors import RegraftError, RejectedError

SETTLE_S = 1.0  # a server of KFP 2.17.0 writes the state of a run before those of its tasks
Verdict = Literal["accepted", "rejected"]


@dataclass(frozen=True)
class Waiting:
    """Time limit, interval of requests, and the longest outage of the server to tolerate."""

    deadline_s: float = 86_400.0
    poll_s: float = 5.0
    outage_s: float = 600.0


class RunFailedError(RegraftError):
    """The run ended without a verdict."""


def verdict_of(run: Any) -> Verdict:
    """Return the verdict of a run that has ended.

    Raises:
        RunFailedError: it failed or was canceled, or its verdict is unknown.
    """
    tasks = tasks_of(run)
    failed = [task for task in tasks if task.state in FAILED]
    done = {task.name.split()[0] for task in tasks if task.state == "SUCCEEDED"}
    canceled = any(one.state == "CANCELING" for one in run.state_history or ())
    if canceled or run.state != "SUCCEEDED" or failed:
        errors = [f"{task.name}{f': {task.error}' if task.error else ''}" for task in failed]
        cause = "" if canceled else "; ".join(errors) or error_of(run)
        state = "CANCELED" if canceled else "FAILED" if run.state == "SUCCEEDED" else run.state
        raise RunFailedError(f"the run ended as {state}{f': {cause}' if cause else ''}")
    if "publish" in done:
        return "accepted"
    if "record-rejection" in done:
        return "rejected"
    raise RunFailedError(
        "the run ended as SUCCEEDED, but the server reported neither `publish` nor "
        "`record-rejection` as done; verdict unknown: see the output of `conclude` on its page"
    )


def wait(
    client: Client, run_id: str, listener: Callable[[list[Task]], None], waiting: Waiting
) -> Verdict:
    """Wait for the end of a run; `listener` gets the steps after each request.

    Raises:
        RunFailedError: the run ended without a verdict.
        SubmissionError: the server did not respond for too long, or the time limit passed. The run
            continues.
        AccessError: the token has expired. The run continues.
    """
    start = last_response = time.monotonic()
    while True:
        try:
            run = client.get_run(run_id)
            last_response = time.monotonic()
        except (NoResponseError, UnreachableError) as error:
            if time.monotonic() - last_response >= waiting.outage_s:
                raise SubmissionError(f"{error}; the run {run_id} continues") from None
        except AccessError as error:
            raise AccessError(f"{error}; the run {run_id} continues") from None
        else:
            listener(tasks_of(run))
            if has_ended(run):
                run = _settled(client, run, waiting)
                listener(tasks_of(run))
                return verdict_of(run)
        if time.monotonic() - start >= waiting.deadline_s:
            raise SubmissionError(
                f"the run {run_id} has not ended within {waiting.deadline_s:g} s; it continues"
            )
        threading.Event().wait(waiting.poll_s)


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
