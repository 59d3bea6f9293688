"""A run on a server, watched to its end: each step's state, and the verdict.

KFP knows no verdict: a run that the gate rejected ends SUCCEEDED too. It is read from the tasks'
states: `publish` runs only for an accepted model, so an accepted run has a `publish` that
SUCCEEDED, and a rejected one an `evaluate` that SUCCEEDED without it. A failed step may end
SUCCEEDED too, as `conclude` comes after it and succeeds; so a step that FAILED is looked for.
"""

from __future__ import annotations

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
from regraft_core.runtime.errors import RegraftError, RejectedError

STEPS = ("ingest", "extract-features", "train-head", "fine-tune", "evaluate", "export", "verify",
         "publish", "conclude")  # fmt: skip
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED", "ERROR")
Verdict = Literal["accepted", "rejected"]


@dataclass(frozen=True)
class Task:
    """One step's state, as the server tells it. Workers of one step are numbered from 1."""

    name: str
    state: str
    seconds: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Waiting:
    """How long and how often to look. `outage_s`: how long a server may be away meanwhile."""

    deadline_s: float = 86_400.0
    poll_s: float = 5.0
    outage_s: float = 600.0


class RunFailedError(RegraftError):
    """The run ended without a verdict."""


def tasks_of(run: Any) -> list[Task]:
    """Return the steps of a run in the pipeline's order, without KFP's own tasks."""
    details = (run.run_details.task_details if run.run_details else None) or []
    tasks = []
    for step in STEPS:
        found = [task for task in details if _step(task.display_name) == step]
        found.sort(key=lambda task: (str(task.create_time), task.task_id or ""))
        for number, task in enumerate(found, 1):
            name = f"{step} {number}/{len(found)}" if len(found) > 1 else step
            tasks.append(Task(name, task.state or "PENDING", _seconds(task), _error(task)))
    return tasks


def verdict_of(run: Any) -> Verdict:
    """Return the verdict of a run that has ended.

    Raises:
        RunFailedError: it failed, was cancelled, or its tasks do not tell.
    """
    tasks = tasks_of(run)
    failed = [task for task in tasks if task.state in ("FAILED", "ERROR")]
    done = {task.name.split()[0] for task in tasks if task.state == "SUCCEEDED"}
    if run.state == "SUCCEEDED" and "publish" in done:
        return "accepted"
    if run.state != "SUCCEEDED" or failed:
        told = [f"{task.name}{f': {task.error}' if task.error else ''}" for task in failed]
        cause = "; ".join(told) or _error(run)
        state = "FAILED" if run.state == "SUCCEEDED" else run.state
        raise RunFailedError(f"the run ended {state}{f': {cause}' if cause else ''}")
    if "evaluate" in done:
        return "rejected"
    raise RunFailedError("the run ended SUCCEEDED, but the server tells of no step `evaluate`, so "
                         "its verdict is not known")  # fmt: skip


def wait(
    client: Client, run_id: str, listener: Callable[[list[Task]], None], waiting: Waiting
) -> Verdict:
    """Wait for the end of a run; `listener` gets the steps at each look.

    Raises:
        RunFailedError: the run ended without a verdict.
        SubmissionError: the server stayed away, or the deadline passed. The run goes on.
        AccessError: the token has expired. The run goes on.
    """
    start = seen = time.monotonic()
    while True:
        try:
            run = client.get_run(run_id)
            seen = time.monotonic()
        except (NoResponseError, UnreachableError) as error:
            if time.monotonic() - seen >= waiting.outage_s:
                raise SubmissionError(f"{error}; the run {run_id} goes on") from None
        except AccessError as error:
            raise AccessError(f"{error}; the run {run_id} goes on") from None
        else:
            listener(tasks_of(run))
            if (run.state or "").upper() in ENDED:
                return verdict_of(run)
        if time.monotonic() - start >= waiting.deadline_s:
            raise SubmissionError(
                f"the run {run_id} has not ended within {waiting.deadline_s:g} s; it goes on"
            )
        threading.Event().wait(waiting.poll_s)


def raise_if_rejected(verdict: Verdict, page: str) -> None:
    """End a command as the verdict says.

    Raises:
        RejectedError: the gate rejected the model.
    """
    if verdict == "rejected":
        raise RejectedError(f"the gate rejected the model; the reasons are in the report: {page}")


def _step(display_name: str | None) -> str:
    return (display_name or "").replace("_", "-")


def _seconds(task: Any) -> float | None:
    if task.start_time is None or task.end_time is None:
        return None
    seconds = float((task.end_time - task.start_time).total_seconds())
    return seconds if seconds >= 0 else None  # an end of 1970 says that there is none


def _error(task: Any) -> str:
    message = getattr(task.error, "message", "") if task.error else ""
    return " ".join(str(message or "").split())[:300]
