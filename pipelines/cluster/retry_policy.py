"""Retries of failed steps on a cluster: their number, the waits between them, and time limits.

Local runs do not retry: the user sees the error at once, and a second run continues at the failed
step. The backend of kfp ignores retries within a `ParallelFor` (kubeflow/pipelines#12389), so
`extract_features` and `fine_tune` depend on the retry of the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HOUR_S = 3600


@dataclass(frozen=True)
class RetryPolicy:
    """Retries, the waits between them (which double), and the time limit of each attempt."""

    retries: int
    timeout_s: int
    first_wait_s: int = 30
    longest_wait_s: int = 600


RETRY_POLICIES: dict[str, RetryPolicy] = {
    "ingest": RetryPolicy(
        retries=3, timeout_s=12 * HOUR_S
    ),  # downloads also have their own retries
    "extract_features": RetryPolicy(retries=2, timeout_s=24 * HOUR_S),
    "train_head": RetryPolicy(retries=2, timeout_s=12 * HOUR_S),
    "fine_tune": RetryPolicy(retries=2, timeout_s=72 * HOUR_S),
    "evaluate": RetryPolicy(retries=2, timeout_s=6 * HOUR_S),
    "export": RetryPolicy(retries=2, timeout_s=2 * HOUR_S),
    "verify": RetryPolicy(retries=1, timeout_s=2 * HOUR_S),
    "publish": RetryPolicy(retries=3, timeout_s=2 * HOUR_S),
    "conclude": RetryPolicy(retries=1, timeout_s=HOUR_S),
}


def set_retries(task: Any, policy: RetryPolicy) -> None:
    """Make kfp retry the task."""
    task.set_retry(
        num_retries=policy.retries,
        backoff_duration=f"{policy.first_wait_s}s",
        backoff_factor=2.0,
        backoff_max_duration=f"{policy.longest_wait_s}s",
    )


def set_deadline(task: Any, policy: RetryPolicy) -> None:
    """Make Kubernetes end an attempt that takes too long."""
    from kfp import kubernetes

    kubernetes.set_timeout(task, policy.timeout_s)
