"""Processes that work together, one on each node of a Ray cluster, with all CPUs or GPUs of it.

They exchange data by connections of their own, so if one of them is lost, the others cannot go on:
all are ended and started again, on the nodes that are there then.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from regraft_core.parallel.attempts import Attempts
from regraft_core.parallel.executor import Result, Task, find_function, name_of
from regraft_core.parallel.ray_workers import WAIT_S, cause_of, nodes, set_threads
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.printable import one_line

PAUSE_S = 3.0
"""Time until the nodes of the cluster are listed again, of which one may just have been lost."""
CAUSE_S = 10.0
"""Time in which the loss of a process is found after another one has lost its connection to it."""
POLL_S = 1.0


@dataclass(frozen=True)
class Place:
    """The place of a process in its group: its number, and the HOST:PORT of all, by number."""

    number: int
    addresses: tuple[str, ...]


class LostConnectionError(Exception):
    """A process could not go on, because it has lost its connection to another one."""


class Member:
    """What runs in an actor: one process of a group."""

    def address(self) -> str:
        """Return an address of this node, with a port that is free."""
        with socket.create_server(("", 0)) as free:
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def run(self, folder: str, name: str, task: Any, place: Place) -> Any:
        """Return the result of the function of this name.

        Raises:
            LostConnectionError: the function has lost its connection to another process.
            Exception: any other one of the function.
        """
        with contextlib.suppress(OSError):
            os.chdir(folder)
        set_threads()
        try:
            return find_function(name)(task, place)
        except RegraftError:
            raise
        except Exception as error:
            traceback.print_exc()  # in the log of this process
            if not _is_of_connection(error):
                raise
            raise LostConnectionError(f"{type(error).__name__}: {one_line(error)[:200]}") from None


def _is_of_connection(error: Exception) -> bool:
    """Return whether the loss of another process causes such errors, also those of TensorFlow."""
    if isinstance(error, ConnectionError):
        return True
    if "tensorflow" not in sys.modules:
        return False
    from tensorflow import errors

    lost = (errors.AbortedError, errors.CancelledError, errors.DeadlineExceededError,
            errors.InternalError, errors.UnavailableError)  # fmt: skip
    return isinstance(error, lost)


class NodeGroup:
    """The nodes of the cluster that this process uses; with GPUs, only those that have them."""

    @property
    def has_gpus(self) -> bool:
        """Whether the processes have GPUs."""
        return any(node["Resources"].get("GPU") for node in nodes())

    def __len__(self) -> int:
        return len(self._nodes())

    def run(
        self,
        function: Callable[[Task, Place], Result],
        task: Task,
        what: str,
        saved: Callable[[], object],
        report: Callable[[], object],
    ) -> Result:
        """Run a function in one process on each node; return the result of the first one.

        Args:
            function: a function of a module, which goes on from what it saved.
            task: plain data.
            what: the work, for reports.
            saved: returns a value that changes when the work saves something.
            report: is called each second.

        Raises:
            RegraftError: processes were lost in several attempts without progress, or no nodes had
                room.
            Exception: what `function` raises.
        """
        attempts = Attempts(what, saved)
        while True:
            with self._placed(what) as (actors, addresses):
                references = [
                    actor.run.remote(str(Path.cwd()), name_of(function), task, Place(k, addresses))
                    for k, actor in enumerate(actors)
                ]
                try:
                    return _first_result(references, report)
                except RayError as error:
                    cause = _cause_of(error, references)
            attempts.lose(cause)

    def _nodes(self) -> list[dict[str, Any]]:
        found = nodes()
        return [node for node in found if node["Resources"].get("GPU")] or found

    @contextlib.contextmanager
    def _placed(self, what: str) -> Iterator[tuple[list[Any], tuple[str, ...]]]:
        """Yield an actor on each node, and their addresses; end the actors."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            actors = [_start(node) for node in self._nodes()]
            addresses: list[str] = []
            try:
                with contextlib.suppress(RayError):  # a node was lost
                    references = [actor.address.remote() for actor in actors]
                    addresses = ray.get(references, timeout=end - time.monotonic())
                if addresses:
                    yield actors, tuple(addresses)
                    return
            finally:
                for actor in actors:
                    with contextlib.suppress(RayError):
                        ray.kill(actor)
            time.sleep(PAUSE_S)
        raise RegraftError(f"{what}: the Ray nodes had no room for processes in {WAIT_S:g} s")


def _start(node: dict[str, Any]) -> Any:
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    cpus, gpus = (int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
    options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "scheduling_strategy": there}
    return ray.remote(Member).options(**options).remote()


def _first_result(references: Sequence[Any], report: Callable[[], object]) -> Any:
    """Return the result of the first process.

    Raises:
        RayError: a process was lost, or has raised an error.
    """
    waiting = list(references)
    while references[0] in waiting:
        done, waiting = ray.wait(waiting, timeout=POLL_S)
        report()
        ray.get(done)
    return ray.get(references[0])


def _cause_of(error: RayError, references: Sequence[Any]) -> str:
    """Return why an attempt has ended: a process that was lost, rather than those that it left.

    Raises:
        Exception: of the function; a further attempt would meet it again.
    """
    _raise_fault(error)
    if isinstance(error, RayTaskError):
        done, _ = ray.wait(list(references), num_returns=len(references), timeout=CAUSE_S)
        errors = [found for found in map(_error_of, done) if found is not None]
        lost = next((one for one in errors if not isinstance(one, RayTaskError)), None)
        for one in errors if lost is None else ():
            _raise_fault(one)
        error = lost or error
    cause = error.cause if isinstance(error, RayTaskError) else error
    return (str(cause).splitlines() or [type(cause).__name__])[0].rstrip(". ")


def _raise_fault(error: RayError) -> None:
    """Raise the error of a function, unless it has lost its connection."""
    if isinstance(error, RayTaskError) and not isinstance(error.cause, LostConnectionError):
        raise cause_of(error) from error


def _error_of(reference: Any) -> RayError | None:
    try:
        ray.get(reference)
    except RayError as error:
        return error
    return None
