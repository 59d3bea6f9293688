"""A Ray cluster of its own on this machine, which only its own run can use.

Ray executes whatever code reaches it. So all ports are of the loopback interface, the dashboard is
off, and a random token authenticates all requests (Ray's token authentication, since 2.52).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from regraft_core.parallel.ray_package import check_ray_package
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.machine import available_cores

LOOPBACK = "127.0.0.1"
START_S = 120.0
"""Time that a node has to start."""
_STORE_BYTES = 512 << 20
"""Memory for objects in flight, which the executor limits."""
_ADDRESS_FILE = "ray_current_cluster"
_ROOT = Path(__file__).parents[2]


class RayCluster:
    """Ray nodes of this machine, stopped by `close` or with this process.

    Args:
        cpus: CPUs of the first node; 0 is each available core.

    Raises:
        InputError: Ray is not installed.
        RegraftError: Ray does not start.
    """

    def __init__(self, cpus: int = 0) -> None:
        check_ray_package("local")
        self._token = secrets.token_hex(32)
        self._nodes: list[subprocess.Popen[bytes]] = []
        # Not in TMPDIR: the paths of Ray's sockets, below this folder, have at most 107 bytes.
        folder = Path(tempfile.mkdtemp(prefix="regraft-ray-", dir="/tmp"))  # noqa: S108
        self._start(folder, cpus or available_cores(), ["--head", "--port=0"])
        try:
            self.address = self._read_address(folder / _ADDRESS_FILE)
        except BaseException:
            self.close()
            raise

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables of processes that use this cluster."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token}

    def add_node(self, cpus: int = 1) -> None:
        """Start another node."""
        folder = Path(tempfile.mkdtemp(prefix="regraft-ray-", dir="/tmp"))  # noqa: S108
        self._start(folder, cpus, [f"--address={self.address}"])

    def stop_node(self) -> None:
        """Stop the node that was added last, with its workers."""
        _stop(self._nodes.pop())

    def close(self) -> None:
        """Stop all nodes, the first one last."""
        while self._nodes:
            self.stop_node()

    def _start(self, folder: Path, cpus: int, arguments: list[str]) -> None:
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
        command = [
            sys.executable, "-P", "-m", "regraft_core.parallel.ray_node", *arguments,
            f"--node-ip-address={LOOPBACK}", f"--num-cpus={cpus}", "--include-dashboard=false",
            f"--object-store-memory={_STORE_BYTES}", "--disable-usage-stats",
            "--include-log-monitor=false", "--temp-dir", str(folder),
        ]  # fmt: skip
        variables = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        with open(folder / "node.log", "wb") as log:
            node = subprocess.Popen(
                command, env={**os.environ, **variables, **self.environment},
                stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        self._nodes.append(node)

    def _read_address(self, file: Path) -> str:
        """Return the cluster's HOST:PORT as soon as its first node has started."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._nodes[0].poll() is None:
            with contextlib.suppress(OSError):
                if address := file.read_text(encoding="utf-8").strip():
                    return address
            time.sleep(0.05)
        raise RegraftError("ray: a cluster on this machine did not start")


def _stop(node: subprocess.Popen[bytes]) -> None:
    assert node.stdin
    node.stdin.close()
    node.wait()


@contextlib.contextmanager
def local_cluster(cpus: int = 0) -> Iterator[RayCluster]:
    """Start a cluster on this machine; stop it at the end of the context."""
    with contextlib.closing(RayCluster(cpus)) as cluster:
        yield cluster
