"""A Ray cluster of its own on this machine, which only its own run can use.

Ray executes whatever code reaches it. So all ports are of the loopback interface, the dashboard is
off, and a random token authenticates all requests (Ray's token authentication, since 2.52).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from regraft_core.parallel.ray_package import check_ray_package
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.machine import available_cores
from regraft_core.runtime.printable import one_line

START_ATTEMPTS = 3
"""Ray gives a node half a minute to start, which a busy machine may exceed."""
ANSWER_S = 180.0
"""Time for the nodes' process to start a node, or to stop one."""
_ROOT = Path(__file__).parents[2]
_LOG = "nodes.log"


class RayCluster:
    """Ray nodes of this machine, stopped at the end of its context or with this process.

    Args:
        cpus: CPUs of the first node; 0 is each available core.
        own_cores: each node has cores of its own, as long as there are enough, as machines have.

    Raises:
        InputError: Ray is not installed.
        RegraftError: Ray does not start.
    """

    def __init__(self, cpus: int = 0, *, own_cores: bool = False) -> None:
        check_ray_package("local")
        self.environment: Mapping[str, str] = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            # Ray's setting to use the loopback interface alone, on any system.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        """The environment variables of processes that use this cluster."""
        for attempt in range(1, START_ATTEMPTS + 1):
            # Not in TMPDIR: the paths of Ray's sockets, below this folder, have at most 107 bytes.
            self._folder = Path(tempfile.mkdtemp(prefix="regraft-ray-", dir="/tmp"))
            self._process = self._start(cpus or available_cores(), own_cores)
            try:
                self.address = self._read_answer()
                """HOST:PORT of the cluster."""
                return
            except RegraftError:
                if attempt == START_ATTEMPTS:
                    raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add_node(self, cpus: int = 1) -> None:
        """Start another node, and wait until it is there."""
        self._send(f"add {cpus}")

    def stop_node(self) -> None:
        """Kill the node that was added last, with its workers."""
        self._send("stop")

    def close(self) -> None:
        """Stop all nodes, and remove the folder of the session."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(ANSWER_S)
        self._kill()
        self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _kill(self) -> None:
        """End all processes of the session: a node that did not start, or that does not respond."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _start(self, cpus: int, own_cores: bool) -> subprocess.Popen[str]:
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
        command = [sys.executable, "-P", "-m", "regraft_core.parallel.ray_nodes",
                   str(self._folder), str(cpus), *(["own"] if own_cores else [])]  # fmt: skip
        variables = {
            **os.environ, **self.environment, "PYTHONPATH": path, "PYTHONSAFEPATH": "1",
            # Ray gives its workers the lowest priority, at which other work can stop them: those of
            # a run do the run's work.
            "RAY_worker_niceness": "0",
        }  # fmt: skip
        with open(self._folder / _LOG, "wb") as log:
            return subprocess.Popen(
                command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                text=True, start_new_session=True,
            )  # fmt: skip

    def _send(self, command: str) -> None:
        assert self._process.stdin
        print(command, file=self._process.stdin, flush=True)
        self._read_answer()

    def _read_answer(self) -> str:
        """Return the next line; without one, the process has ended, and the log says why."""
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], ANSWER_S)[0]:
            self._kill()
            self.close()
            raise RegraftError(
                f"ray: the cluster on this machine did not respond within {ANSWER_S:g} s"
            )
        answer = self._process.stdout.readline().strip()
        if not answer:
            lines = (self._folder / _LOG).read_text(errors="replace").splitlines()
            self.close()
            cause = one_line(lines[-1])[:200] if lines else "no error in its log"
            raise RegraftError(f"ray: the cluster on this machine did not start: {cause}")
        return answer
