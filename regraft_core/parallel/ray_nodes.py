"""The process of a cluster on this machine: it starts Ray nodes, and ends with its parent.

Arguments are the folder of the session, which is removed at the end, and the CPUs of the first
node. It prints the cluster's address, then obeys lines of standard input: `add CPUS` starts a node
and `stop` kills the last one. When standard input ends, all nodes are stopped; if this process is
killed, Ray's own reaper stops them.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys

STORE_BYTES = 512 << 20
"""Memory for objects in flight, which the executor limits."""


def main(folder: str, cpus: int) -> None:
    """Run the nodes until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes of a run
    os.environ["RAY_TMPDIR"] = folder
    from ray.cluster_utils import Cluster

    node = {
        "node_ip_address": "127.0.0.1", "include_dashboard": False, "include_log_monitor": False,
        "no_monitor": True, "object_store_memory": STORE_BYTES,
    }  # fmt: skip
    cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": cpus})
    added = []
    print(cluster.address, flush=True)
    for line in sys.stdin:
        command, _, count = line.strip().partition(" ")
        if command == "add":
            added.append(cluster.add_node(**node, num_cpus=int(count)))
        elif command == "stop":
            cluster.remove_node(added.pop(), allow_graceful=False)
        print(command, flush=True)
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
