"""The executor of a Ray cluster: workers are actors, which this process places, feeds and replaces.

Ray could repeat lost work itself, but would neither report it nor limit what is in flight in the
order of the tasks. A worker is sent the name of a function of Regraft and plain data, never code.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from regraft_core.parallel.executor import (
    ATTEMPTS,
    Executor,
    Result,
    Setup,
    Task,
    find_function,
    fits,
    name_of,
    no_bytes,
)
from regraft_core.parallel.worker_rooms import Room, large_rooms
from regraft_core.runtime.errors import NodeMemoryError, RegraftError
from regraft_core.runtime.step_reports import log_progress

DEPTH = 2
"""Tasks that a worker has: one in work, one next."""
WAIT_S = 600.0
"""Time to wait for a node with room for a worker, if there is none."""


class Worker:
    """What runs in an actor: one function at a time, prepared once."""

    def __init__(self) -> None:
        self._prepared = b""
        self._call: Callable[[Any], Any] | None = None

    def prepare(self, folder: str, name: str, setup: tuple[Any, ...]) -> None:
        """Find the function; with a `setup`, call it once to get the function of the tasks.

        The function of the last work is kept for another one with the same setup, such as the next
        view of an extraction. Relative paths of the tasks are those of the working folder.
        """
        # Not compared as values, because arrays in a setup have no single result.
        wanted = hashlib.sha256(pickle.dumps((folder, name, setup))).digest()
        if self._prepared == wanted:
            return
        self._prepared, self._call = b"", None  # frees the memory of the last work
        with contextlib.suppress(OSError):
            os.chdir(folder)
        set_threads()
        function = find_function(name)
        self._call = function(*setup) if setup else function
        self._prepared = wanted

    def call(self, task: Any) -> Any:
        """Return the result of a task."""
        assert self._call
        return self._call(task)


@dataclass(eq=False)
class _Hired:
    actor: Any
    room: Room
    ready: bool = False
    tasks: set[int] = field(default_factory=set)


class RayWorkers(Executor):
    """Workers on the nodes of the cluster that this process is connected to."""

    def __init__(self) -> None:
        self._hired: list[_Hired] = []

    def __exit__(self, *error: object) -> None:
        """End the workers and the connection."""
        while self._hired:
            self._dismiss(self._hired[-1])
        ray.shutdown()

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        what: str,
        size: Callable[[Task], int] = no_bytes,
    ) -> Iterator[Result]:
        """Yield the results of `function` in the order of `tasks`; see `Executor.map`."""
        count = max(1, int(sum(node["Resources"].get("CPU", 0) for node in nodes())))
        return self._run(function, (), tasks, what, size, Room(1), count)

    def map_prepared(
        self,
        prepare: Callable[[Setup], Callable[[Task], Result]],
        setup: Setup,
        tasks: Iterable[Task],
        what: str,
    ) -> Iterator[Result]:
        """Yield the results of `prepare(setup)` of each task; see `Executor.map_prepared`.

        A worker takes what `large_rooms` returns.
        """
        room, count = large_rooms([node["Resources"] for node in nodes()])
        return self._run(prepare, (setup,), tasks, what, no_bytes, room, count)

    def _run(
        self, function: Callable[..., Any], setup: tuple[Any, ...], tasks: Iterable[Task],
        what: str, size: Callable[[Task], int], room: Room, count: int,
    ) -> Iterator[Any]:  # fmt: skip
        for one in [one for one in self._hired if one.room != room]:
            self._dismiss(one)
        while len(self._hired) < count:
            self._hired.append(_Hired(_hire(room), room))
        work = _Work(self, name_of(function), setup, what)
        for one in self._hired:
            work.prepare(one)
        source, last = enumerate(tasks), False
        limit = (DEPTH + 1) * count
        upcoming: tuple[int, Task] | None = None
        for number in itertools.count():
            while number not in work.results:
                while not last:
                    upcoming = upcoming or next(source, None)
                    last = upcoming is None
                    if upcoming is None or not fits(
                        len(work.open), work.bytes, size(upcoming[1]), limit
                    ):
                        break
                    work.add(*upcoming, size(upcoming[1]))
                    upcoming = None
                if last and not work.open:
                    return
                try:
                    work.send()
                    work.wait()
                except ConnectionError as error:  # of Ray's client; its message has many lines
                    raise RegraftError(
                        f"{what}: the Ray cluster does not respond any more"
                    ) from error
            yield work.take(number)

    def replace(self, lost: _Hired) -> _Hired:
        """Remove a worker that is lost; return a new one, which may have to wait for a node."""
        self._hired.remove(lost)
        self._hired.append(_Hired(_hire(lost.room), lost.room))
        return self._hired[-1]

    @property
    def hired(self) -> list[_Hired]:
        """All workers, ready or not."""
        return self._hired

    def _dismiss(self, one: _Hired) -> None:
        self._hired.remove(one)
        with contextlib.suppress(RayError, ConnectionError):
            ray.kill(one.actor)


@dataclass
class _Open:
    task: Any
    size: int
    attempts: int = 0


class _Work:
    """One `map`: the tasks that have no result yet or whose result was not taken."""

    def __init__(self, crew: RayWorkers, name: str, setup: tuple[Any, ...], what: str) -> None:
        self._crew, self._name, self._setup, self._what = crew, name, setup, what
        self._references: dict[Any, tuple[_Hired, int | None]] = {}
        self._waiting: deque[int] = deque()
        self._losses = 0
        self.open: dict[int, _Open] = {}
        self.results: dict[int, Any] = {}

    @property
    def bytes(self) -> int:
        """Data of the tasks in flight."""
        return sum(one.size for one in self.open.values())

    def prepare(self, worker: _Hired) -> None:
        """Have a worker prepare for this work; it gets no task before."""
        worker.ready, worker.tasks = False, set()
        reference = worker.actor.prepare.remote(str(Path.cwd()), self._name, self._setup)
        self._references[reference] = worker, None

    def add(self, number: int, task: Any, size: int) -> None:
        """Add a task."""
        self.open[number] = _Open(task, size)
        self._waiting.append(number)

    def take(self, number: int) -> Any:
        """Return a result that is there, and forget its task."""
        del self.open[number]
        return self.results.pop(number)

    def send(self) -> None:
        """Send waiting tasks to ready workers, first those with fewer tasks."""
        for depth in range(DEPTH):
            for worker in self._crew.hired:
                if self._waiting and worker.ready and len(worker.tasks) == depth:
                    number = self._waiting.popleft()
                    reference = worker.actor.call.remote(self.open[number].task)
                    worker.tasks.add(number)
                    self._references[reference] = worker, number

    def wait(self) -> None:
        """Wait until something is done, and read it.

        Raises:
            RegraftError: no node has room for a worker, or workers were lost several times.
        """
        done, _ = ray.wait(list(self._references), num_returns=1, timeout=WAIT_S)
        if not done and not any(worker.ready for worker in self._crew.hired):
            raise RegraftError(f"{self._what}: no Ray node had room for a worker in {WAIT_S:g} s")
        # All that are done, because with many workers each call takes longer than a result.
        done, _ = ray.wait(list(self._references), num_returns=len(self._references), timeout=0)
        for reference in done:
            if reference not in self._references:  # of a worker that was found lost meanwhile
                continue
            worker, number = self._references.pop(reference)
            try:
                result = ray.get(reference)
            except RayTaskError as error:
                raise cause_of(error) from error
            except RayError as error:
                self._lose(worker, error)
                continue
            if number is None:
                worker.ready = True
            else:
                self._losses = 0
                worker.tasks.remove(number)
                self.results[number] = result

    def _lose(self, worker: _Hired, error: RayError) -> None:
        """Replace a worker, and repeat the tasks that it had."""
        cause = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        lost = [reference for reference, (one, _) in self._references.items() if one is worker]
        for reference in lost:
            del self._references[reference]
        self._losses += 1
        for number in sorted(worker.tasks, reverse=True):
            self.open[number].attempts += 1
            self._waiting.appendleft(number)
        attempts = max((self.open[number].attempts for number in worker.tasks), default=0)
        if attempts == ATTEMPTS or self._losses > ATTEMPTS * len(self._crew.hired):
            if isinstance(error, OutOfMemoryError):
                raise NodeMemoryError(
                    f"{self._what}: Ray nodes had too little memory {ATTEMPTS} times for the same "
                    f"task ({cause})"
                ) from error
            raise RegraftError(
                f"{self._what}: Ray workers were lost {ATTEMPTS} times with the same task "
                f"({cause}); do the nodes have enough memory?"
            ) from error
        log_progress(f"{self._what}: a Ray worker was lost ({cause}); its tasks are repeated")
        with contextlib.suppress(RayError, ConnectionError):
            ray.kill(worker.actor)  # it may live, and only its result be lost
        self.prepare(self._crew.replace(worker))


def cause_of(error: RayTaskError) -> BaseException:
    """Return the error of a task; of one that cannot be sent to another process, its text."""
    cause: BaseException = error.cause
    return RuntimeError(str(cause)) if isinstance(cause, RayError) else cause


def set_threads() -> None:
    """Have TensorFlow use only the CPUs of this actor, to which Ray sets `OMP_NUM_THREADS`."""
    for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(variable, os.environ.get("OMP_NUM_THREADS", "1"))


def nodes() -> list[dict[str, Any]]:
    """Return the nodes of the cluster that are alive and have CPUs."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def _hire(room: Room) -> Any:
    options = {"num_cpus": room.cpus, "num_gpus": room.gpus, "max_restarts": 0}
    return ray.remote(Worker).options(**options).remote()
