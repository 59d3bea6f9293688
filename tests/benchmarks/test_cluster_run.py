"""The overhead of a run on a cluster is what its steps do not explain."""

from __future__ import annotations

import pytest

from benchmarks.cluster_run import run_overhead


def test_the_overhead_is_the_time_outside_of_the_steps() -> None:
    logs = [
        "I0101 driver started\n",
        "[regraft] ingest: start\n[regraft] ingest: 3 classes\n[regraft] ingest: done in 4.0 s\n",
        # A repeated step: the last attempt counts.
        "[regraft] export: done in 9.0 s\n[regraft] export: done in 6.5 s\n",
    ]
    metrics = run_overhead(30.5, logs)
    assert metrics["cluster_steps"].value == 2
    assert metrics["cluster_steps_time"].value == 10.5
    assert metrics["cluster_overhead_per_step"].value == 10.0


def test_a_server_without_logs_is_named() -> None:
    with pytest.raises(ValueError, match="may not keep logs"):
        run_overhead(30.0, ["I0101 driver started"])
