"""A cluster of this machine whose process hangs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from regraft_core.parallel import ray_cluster
from regraft_core.parallel.ray_cluster import RayCluster
from regraft_core.runtime.errors import RegraftError


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def hang(cluster: RayCluster, cpus: int, own_cores: bool) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "import signal; signal.pause()"]
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        )
        return started[-1]

    monkeypatch.setattr(ray_cluster, "ANSWER_S", 0.1)
    monkeypatch.setattr(RayCluster, "_start", hang)
    with pytest.raises(RegraftError, match=r"^ray: the cluster on this machine did not respond"):
        RayCluster(1)
    assert [process.returncode for process in started] == [-9] * ray_cluster.START_ATTEMPTS
