"""How often a failed step is retried on a cluster, after what wait, and how long it may take.

`step_process` applies the policies. Not for local runs: there a person sees the error at once, and
running the command again resumes from the step that failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HOUR_S = 3600


@dataclass(frozen=True)
class RetryPolicy:
    """Retries after the first attempt, the first wait (later ones double), the longest attempt."""

    retries: int
    timeout_s: int
    first_wait_s: int = 30

    def wait_s(self, number: int) -> float:
        """Return the longest wait after a failed attempt; the first one has number 0."""
        return float(self.first_wait_s * 2**number)

    @property
    def total_s(self) -> int:
        """Seconds from the first start to the end of the last retry, at most."""
        waits = sum(self.wait_s(number) for number in range(self.retries))
        return (self.retries + 1) * self.timeout_s + int(waits)


RETRY_POLICIES: dict[str, RetryPolicy] = {
    "resolve": RetryPolicy(retries=0, timeout_s=HOUR_S),  # an invalid input stays invalid
    "start_ray": RetryPolicy(retries=1, timeout_s=HOUR_S),
    "ingest": RetryPolicy(retries=3, timeout_s=12 * HOUR_S),  # downloads are retried within
    "extract_features": RetryPolicy(retries=2, timeout_s=24 * HOUR_S),
    "merge_features": RetryPolicy(retries=2, timeout_s=2 * HOUR_S),
    "train_head": RetryPolicy(retries=2, timeout_s=12 * HOUR_S),
    "fine_tune": RetryPolicy(retries=2, timeout_s=72 * HOUR_S),
    "evaluate": RetryPolicy(retries=2, timeout_s=6 * HOUR_S),
    "export": RetryPolicy(retries=2, timeout_s=2 * HOUR_S),
    "verify": RetryPolicy(retries=1, timeout_s=2 * HOUR_S),
    "publish": RetryPolicy(retries=3, timeout_s=2 * HOUR_S),
    "record_verdict": RetryPolicy(retries=3, timeout_s=HOUR_S),
    "conclude": RetryPolicy(retries=1, timeout_s=HOUR_S),
}


def set_deadline(task: Any, policy: RetryPolicy) -> None:
    """Let Kubernetes end a pod of the task that takes longer than all its attempts may."""
    from kfp import kubernetes

    kubernetes.set_timeout(task, policy.total_s)
