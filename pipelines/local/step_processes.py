"""The processes of a local run's steps, forked from one process that has imported TensorFlow."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import TextIO

from regraft_core.runtime.gpu_check import DEVICE_FILES
from serving.module_process import module_command, module_environment

EXECUTOR = "kfp.dsl.executor_main"
WITH_TENSORFLOW = frozenset(
    ("extract_features", "train_head", "fine_tune", "evaluate", "export", "verify")
)
"""The steps that import TensorFlow."""


@contextlib.contextmanager
def steps_by_forks(log: TextIO) -> Iterator[None]:
    """Have kfp's subprocess runner fork its processes, within this context.

    kfp 2.17 starts each of them by `run_local_subprocess`, which is replaced: its map of runners
    to what executes them is a local variable, so that a runner of one's own cannot be added.

    On a machine with a GPU, and on any system but Linux, the steps are new processes as before: a
    process may use neither a GPU nor macOS' frameworks that another had begun to use at the fork.

    Args:
        log: the log of the run, a file; errors of the process that is forked go there.
    """
    if sys.platform != "linux" or any(Path(file).exists() for file in DEVICE_FILES):
        yield
        return
    from kfp.local import subprocess_task_handler

    new_process = subprocess_task_handler.run_local_subprocess
    with contextlib.closing(StepProcesses(log)) as processes:
        subprocess_task_handler.run_local_subprocess = processes.run
        try:
            yield
        finally:
            subprocess_task_handler.run_local_subprocess = new_process


class StepProcesses:
    """Starts the process that is forked, and executes steps in its forks; for several threads."""

    def __init__(self, log: TextIO) -> None:
        self._connection, theirs = Pipe()
        self._lock = threading.Lock()
        command = module_command("pipelines.local.fork_server", str(theirs.fileno()))
        self._server = subprocess.Popen(
            command,
            env=module_environment()
            | {"_KFP_RUNTIME": "true"},  # kfp then imports its executor only
            pass_fds=[theirs.fileno()],
            stdout=log,
            stderr=log,
        )
        theirs.close()
        self.pid = self._server.pid

    def run(self, full_command: Sequence[str], env_vars: Mapping[str, str] | None = None) -> int:
        """Execute one step and print its output, as kfp's `run_local_subprocess` does.

        Args:
            full_command: kfp's command of a component: a shell script that passes the component's
                code, then the executor's arguments, to the executor.
            env_vars: more environment variables of the process.

        Returns:
            The exit code; negative for a process that was killed, by which signal.
        """
        (script,) = [at for at, part in enumerate(full_command) if EXECUTOR in part]
        code, *arguments = full_command[script + 1 :]
        name = arguments[arguments.index("--function_to_execute") + 1]
        output, their_output = os.pipe()
        status, their_status = os.pipe()
        needs = [EXECUTOR, "tensorflow"] if name in WITH_TENSORFLOW else [EXECUTOR]
        # Next to `ingest`, which does not use all cores. It is not executed if nothing has changed.
        follows = ["tensorflow"] if name == "ingest" else []
        step = {
            "code": code,
            "arguments": arguments,
            "environment": dict(env_vars or {}),
            "import_before": needs,
            "import_after": follows,
        }
        with open(output, errors="backslashreplace") as lines, open(status) as exit_code:
            try:
                with self._lock:
                    self._connection.send_bytes(json.dumps(step).encode())
                    for handle in (their_output, their_status):
                        send_handle(self._connection, handle, self.pid)
            except OSError:
                return 1  # it ended, and said why in the log
            finally:
                os.close(their_output)
                os.close(their_status)
            for line in lines:
                print(line, end="")
            print("\n")
            return int(os.read(exit_code.fileno(), 10) or 1)

    def close(self) -> None:
        """End the process that is forked."""
        self._connection.close()
        self._server.wait()
