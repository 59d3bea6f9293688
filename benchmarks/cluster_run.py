"""The overhead of a run on a cluster, from the times and the logs that its server reports."""

from __future__ import annotations

import re
from collections.abc import Iterable

from benchmarks.result import Metric
from pipelines.cluster.kfp_api import Client, Connection
from pipelines.cluster.pod_reports import pods_of

_DONE = re.compile(r"^\[regraft\] \S+: done in (\d+\.\d) s$", re.MULTILINE)


def run_overhead(wall_s: float, logs: Iterable[str]) -> dict[str, Metric]:
    """Return the seconds of a run and of its steps, and the difference per step.

    Args:
        wall_s: seconds from the creation of the run to its end.
        logs: the logs of the pods; those of steps end with the seconds of the step.

    Raises:
        ValueError: no log is that of a step.
    """
    seconds = [float(found[-1]) for log in logs if (found := _DONE.findall(log))]
    if not seconds:
        raise ValueError("expected the log of a step, found none; the server may not keep logs")
    return {
        "cluster_wall_time": Metric(wall_s, "s"),
        "cluster_steps_time": Metric(sum(seconds), "s"),
        "cluster_steps": Metric(len(seconds)),
        "cluster_overhead_per_step": Metric((wall_s - sum(seconds)) / len(seconds), "s"),
    }


def cluster_metrics(host: str, run_id: str) -> dict[str, Metric]:
    """Measure a run that has ended, with one worker, so that its steps ran one after another.

    Raises:
        ValueError: the run continues, or its server has no logs.
    """
    client = Client(Connection(host))
    run = client.get_run(run_id)
    if run.state != "SUCCEEDED":
        raise ValueError(f"expected a run that has succeeded, got one in state {run.state}")
    logs = (client.read_log(run_id, pod.node) for pod in pods_of(client, run_id))
    return run_overhead((run.finished_at - run.created_at).total_seconds(), logs)
