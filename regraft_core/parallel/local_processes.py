"""Worker processes of this machine, none of which outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Generic

from regraft_core.parallel.executor import ATTEMPTS, Executor, Result, Setup, Task, fits, no_bytes
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.machine import available_cores
from regraft_core.runtime.step_reports import log_progress


class LocalProcesses(Executor):
    """The executor of one machine: processes that end with each `map`.

    Args:
        processes: their number; 0 is one for each available core, and 1 this process alone.
    """

    def __init__(self, processes: int = 0) -> None:
        self._processes = processes or available_cores()

    def __exit__(self, *error: object) -> None:
        """Do nothing: no process is left."""

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        what: str,
        size: Callable[[Task], int] = no_bytes,
    ) -> Iterator[Result]:
        """Yield the results of `function` in the order of `tasks`; see `Executor.map`."""
        if self._processes == 1:
            yield from map(function, tasks)
            return
        limit = 2 * self._processes + 1
        workers = _Workers(function, self._processes, what)
        try:
            for task in tasks:
                added = size(task)
                while not fits(len(workers.pending), workers.bytes, added, limit):
                    yield workers.take_first()
                workers.add(task, added)
            while workers.pending:
                yield workers.take_first()
        finally:
            workers.close()

    def map_prepared(
        self,
        prepare: Callable[[Setup], Callable[[Task], Result]],
        setup: Setup,
        tasks: Iterable[Task],
        what: str,
    ) -> Iterator[Result]:
        """Yield the results in this process, which has all cores; see `Executor.map_prepared`."""
        return map(prepare(setup), tasks)


@dataclass
class _Pending(Generic[Task, Result]):
    task: Task
    size: int
    future: Future[Result]


class _Workers(Generic[Task, Result]):
    """Processes and their tasks, which are repeated by new processes if one of them is killed."""

    def __init__(self, function: Callable[[Task], Result], processes: int, what: str) -> None:
        self._function, self._processes, self._what = function, processes, what
        self._losses = 0
        self._pool: ProcessPoolExecutor | None = None
        self.pending: deque[_Pending[Task, Result]] = deque()

    @property
    def bytes(self) -> int:
        """Data of the tasks in flight."""
        return sum(one.size for one in self.pending)

    def add(self, task: Task, size: int) -> None:
        """Start a task."""
        self.pending.append(_Pending(task, size, self._submit(task)))

    def take_first(self) -> Result:
        """Return the result of the first task.

        Raises:
            RegraftError: processes were killed several times during it.
        """
        while True:
            try:
                result = self.pending[0].future.result()
            except BrokenProcessPool as error:
                self._renew(error)
                continue
            self._losses = 0
            self.pending.popleft()
            return result

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, task: Task) -> Future[Result]:
        if self._pool is None:  # not before, because making the first task may start threads
            self._pool = _start(self._processes)
        try:
            return self._pool.submit(self._function, task)
        except BrokenProcessPool as error:  # seen when its result is taken
            broken: Future[Result] = Future()
            broken.set_exception(error)
            return broken

    def _renew(self, error: BrokenProcessPool) -> None:
        """Start new processes for the tasks that have no result: one process takes all with it."""
        self._losses += 1
        if self._losses == ATTEMPTS:
            raise RegraftError(
                f"{self._what}: a worker process was killed {ATTEMPTS} times; is there enough "
                "memory?"
            ) from error
        log_progress(f"{self._what}: a worker process was killed; its tasks are repeated")
        self.close()
        self._pool = _start(self._processes)
        for one in self.pending:
            if not one.future.done() or isinstance(one.future.exception(), BrokenProcessPool):
                one.future = self._submit(one.task)


def _start(processes: int) -> ProcessPoolExecutor:
    # Forking is fast, and safe while there is one thread; otherwise new processes are started.
    can_fork = sys.platform == "linux" and threading.active_count() == 1
    context: Any = multiprocessing.get_context("fork" if can_fork else "spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """End this worker when its parent is killed; it would wait for tasks forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
