"""How often a failed step is tried again on a cluster, after what wait, and how long it may take.

Not for local runs: there a person sees the error at once, and starting the run again goes on from
the step that failed. kfp's backend passes retries over within a `ParallelFor`
(kubeflow/pipelines#12389), so `extract_features` and `fine_tune` rely on the retry of the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HOUR_S = 3600


@dataclass(frozen=True)
class RetryPolicy:
    """Tries after the first, the waits between them (which double), the longest try."""

    retries: int
    timeout_s: int
    first_wait_s: int = 30
    longest_wait_s: int = 600


RETRY_POLICIES: dict[str, RetryPolicy] = {
    "ingest": RetryPolicy(retries=3, timeout_s=12 * HOUR_S),  # the network's own retries are within
    "extract_features": RetryPolicy(retries=2, timeout_s=24 * HOUR_S),
    "train_head": RetryPolicy(retries=2, timeout_s=12 * HOUR_S),
    "fine_tune": RetryPolicy(retries=2, timeout_s=72 * HOUR_S),
    "evaluate": RetryPolicy(retries=2, timeout_s=6 * HOUR_S),
    "export": RetryPolicy(retries=2, timeout_s=2 * HOUR_S),
    "verify": RetryPolicy(retries=1, timeout_s=2 * HOUR_S),
    "publish": RetryPolicy(retries=3, timeout_s=2 * HOUR_S),
    "conclude": RetryPolicy(retries=1, timeout_s=HOUR_S),
}


def set_retries(task: Any, patience: RetryPolicy) -> None:
    """Let kfp try the task again."""
    task.set_retry(
        num_retries=patience.retries,
        backoff_duration=f"{patience.first_wait_s}s",
        backoff_factor=2.0,
        backoff_max_duration=f"{patience.longest_wait_s}s",
    )


def set_deadline(task: Any, patience: RetryPolicy) -> None:
    """Let Kubernetes end a try of the task that takes too long."""
    from kfp import kubernetes

    kubernetes.set_timeout(task, patience.timeout_s)
