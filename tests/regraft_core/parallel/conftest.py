"""A Ray cluster on this machine, once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regraft_core.parallel import executor
from regraft_core.parallel.ray_cluster import RayCluster
from regraft_core.parallel.ray_executor import RAY_VARIABLE


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """A cluster of one node with one CPU, which this process uses."""
    with RayCluster(1) as started, pytest.MonkeyPatch.context() as patch:
        for name, value in started.environment.items():
            patch.setenv(name, value)
        patch.setenv(RAY_VARIABLE, started.address)
        patch.setattr(executor, "PACKAGES", (*executor.PACKAGES, "tests"))
        yield started
