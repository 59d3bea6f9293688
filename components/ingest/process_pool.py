"""Worker processes: results in order, few tasks in flight, and none that outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.machine import available_cores

Task = TypeVar("Task")
Result = TypeVar("Result")


def process_count(option: int) -> int:
    """Return the number of processes for the option: 0 is one for each available core."""
    return option or available_cores()


def map_in_processes(
    function: Callable[[Task], Result], tasks: Iterable[Task], processes: int
) -> Iterator[Result]:
    """Yield the results of `function` in the order of `tasks`, with few of them in flight.

    Raises:
        RegraftError: a worker was killed, for instance because of its memory.
    """
    if processes == 1:
        yield from map(function, tasks)
        return
    # Forking is fast, and safe while there is one thread; otherwise new processes are started.
    can_fork = sys.platform == "linux" and threading.active_count() == 1
    context = multiprocessing.get_context("fork" if can_fork else "spawn")
    pending: deque[Future[Result]] = deque()
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent)
    try:
        for task in tasks:
            pending.append(pool.submit(function, task))
            if len(pending) > 2 * processes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise RegraftError("a worker process was killed; is there enough memory?") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker when its parent is killed; it would wait for tasks forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
