"""The process whose forks execute the steps of a local run: it imports TensorFlow once for all.

Importing TensorFlow takes seconds, and so does the end of a Python that has used it. A new process
for each of a run's steps would do both each time. A fork has all that this process has imported,
and nothing that another step has done, because this process executes no step. Python's own
`multiprocessing.forkserver` is not used: its processes import the caller's main module, which a
script that calls `regraft.run` need not protect.

`step_processes.py` starts this module and says on the connection, for each step, what to execute
and what to import before and after the fork.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import traceback
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any


def serve(connection: Connection) -> None:
    """Execute each step that arrives in a fork, and write its exit code to the step's own pipe.

    Each fork has a folder for its temporary files, which is removed when it has ended: a fork ends
    without what Python does at its end, where TensorFlow would delete its files.

    When the other side closes the connection, steps that are still running are stopped.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the steps too
    forks = multiprocessing.get_context("fork")
    # Process, pipe and folder, by the process's sentinel.
    running: dict[int, tuple[Any, int, str]] = {}
    while True:
        for ready in wait([connection, *running]):
            if ready is not connection:
                process, status, folder = running.pop(ready)  # type: ignore[arg-type]
                process.join()
                shutil.rmtree(folder, ignore_errors=True)
                os.write(status, str(process.exitcode).encode())
                os.close(status)
                continue
            try:
                step = json.loads(connection.recv_bytes())
            except EOFError:
                for process, _, folder in running.values():
                    process.terminate()
                    process.join(10)
                    shutil.rmtree(folder, ignore_errors=True)
                return
            output, status = recv_handle(connection), recv_handle(connection)
            _import(step["import_before"])
            folder = tempfile.mkdtemp(prefix="regraft-step-")
            process = forks.Process(target=_execute, args=(step, output, folder))
            process.start()
            os.close(output)
            running[process.sentinel] = process, status, folder
            _import(step["import_after"])


def _import(modules: list[str]) -> None:
    """Import modules; one that is missing or damaged is an error of the step that uses it."""
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception:
            traceback.print_exc()


def _execute(step: dict[str, Any], output: int, folder: str) -> None:
    """Execute a step's code by kfp's executor, with an output and a folder for temporary files."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)
    sys.stdout = open(1, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.update(step["environment"])
    from kfp.dsl.executor_main import executor_main

    os.environ["TMPDIR"] = tempfile.tempdir = folder
    component = Path(folder) / "ephemeral_component.py"
    component.write_text(step["code"], encoding="utf-8")
    sys.argv = ["kfp", "--component_module_path", str(component), *step["arguments"]]
    executor_main()


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
    os._exit(0)  # there is nothing to clean up
