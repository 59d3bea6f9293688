"""The process of a cluster on this machine: it starts Ray nodes, and ends with its parent.

Arguments are the folder of the session, which is removed at the end, the CPUs of the first node,
and `own` if nodes have cores of their own, as machines have. It prints the cluster's address, then
obeys lines of standard input: `add CPUS` starts a node and `stop` kills the last one. When standard
input ends, all nodes are stopped; if this process is killed, Ray's own reaper stops them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator

STORE_BYTES = 512 << 20
"""Memory for objects in flight, which the executor limits."""


def main(folder: str, cpus: int, *, own_cores: bool) -> None:
    """Run the nodes until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes of a run
    os.environ["RAY_TMPDIR"] = folder
    from ray.cluster_utils import Cluster

    node = {
        "node_ip_address": "127.0.0.1", "include_dashboard": False, "include_log_monitor": False,
        "no_monitor": True, "object_store_memory": STORE_BYTES,
    }  # fmt: skip
    cores = Cores(sorted(os.sched_getaffinity(0)) if own_cores else [])
    with cores.given(cpus):
        cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": cpus})
    added = []
    print(cluster.address, flush=True)
    for line in sys.stdin:
        command, _, count = line.strip().partition(" ")
        if command == "add":
            with cores.given(int(count)):
                added.append(cluster.add_node(**node, num_cpus=int(count)))
        elif command == "stop":
            cluster.remove_node(added.pop(), allow_graceful=False)
            cores.take_back()
        print(command, flush=True)
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


class Cores:
    """The cores of this machine, given to nodes in their order."""

    def __init__(self, every: list[int]) -> None:
        self._every = every
        self._given: list[list[int]] = []

    @contextlib.contextmanager
    def given(self, count: int) -> Iterator[None]:
        """Let processes that are started in the context have this number of free cores alone.

        Without enough of them, the processes share all cores.
        """
        used = {core for cores in self._given for core in cores}
        free = [core for core in self._every if core not in used][:count]
        self._given.append(free if len(free) == count else [])
        if not self._given[-1]:
            yield
            return
        os.sched_setaffinity(0, free)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self._every)

    def take_back(self) -> None:
        """Free the cores of the last node."""
        self._given.pop()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), own_cores="own" in sys.argv[3:])
