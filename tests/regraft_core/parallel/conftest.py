"""A Ray cluster on this machine, once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regraft_core.parallel import executor
from regraft_core.parallel.ray_cluster import RayCluster
from regraft_core.parallel.ray_executor import RAY_VARIABLE


@pytest.fixture(scope="session")
def started_cluster() -> Iterator[RayCluster]:
    """A cluster of one node with one CPU."""
    with RayCluster(1) as started:
        yield started


@pytest.fixture
def cluster(started_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> RayCluster:
    """The cluster, which this process uses; its workers also run functions of the tests."""
    for name, value in started_cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(RAY_VARIABLE, started_cluster.address)
    monkeypatch.setattr(executor, "PACKAGES", (*executor.PACKAGES, "tests"))
    return started_cluster
