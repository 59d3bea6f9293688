"""What carries parallel work: one function over many tasks, by local processes or by Ray.

Nothing that is decided once (splits, duplicates, classes, the backbone, its engine) is decided by
a worker, and results come in the order of the tasks. So what is written does not depend on the
executor, on the number of workers, or on which of them were lost.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, TypeVar

from regraft_core.runtime.errors import InputError

Setup = TypeVar("Setup")
Task = TypeVar("Task")
Result = TypeVar("Result")
ATTEMPTS = 3
"""How often a task is given to a worker before its loss is an error."""
MAX_BYTES = 256 << 20
"""Data of the tasks in flight; one task may always be."""
PACKAGES = ("benchmarks", "components", "pipelines", "regraft", "regraft_core", "serving")
"""Whose functions a worker calls."""


class Executor(ABC):
    """Calls functions on tasks in several workers; as a context, it ends them."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *error: object) -> None: ...

    @abstractmethod
    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        what: str,
        size: Callable[[Task], int] = ...,
    ) -> Iterator[Result]:
        """Yield the results of `function` in the order of `tasks`, with few of them in flight.

        Args:
            function: a function of a module, which may be repeated for the same task.
            tasks: plain data; read as results are taken.
            what: the work, for reports.
            size: the bytes of data in a task, which are limited for all in flight.

        Raises:
            RegraftError: a worker was lost several times with the same task, for instance because
                of its memory; or what `function` raises.
        """

    @abstractmethod
    def map_prepared(
        self,
        prepare: Callable[[Setup], Callable[[Task], Result]],
        setup: Setup,
        tasks: Iterable[Task],
        what: str,
    ) -> Iterator[Result]:
        """Yield the results of `prepare(setup)` of each task, in order.

        Each worker prepares once, such as by loading a model, and has all cores of its machine.

        Raises:
            RegraftError: as `map`.
        """


def no_bytes(task: object) -> int:
    """Return the size of a task that refers to its data."""
    return 0


def fits(tasks: int, size: int, added: int, limit: int) -> bool:
    """Return whether a task can be added to those in flight.

    Args:
        tasks: number of those in flight.
        size: their bytes.
        added: bytes of the new one.
        limit: the most tasks.
    """
    return not tasks or (tasks < limit and size + added <= MAX_BYTES)


def name_of(function: Callable[..., Any]) -> str:
    """Return the name by which a worker finds a function, `module:function`.

    Raises:
        ValueError: it is not a function of a module of Regraft.
    """
    module, name = function.__module__, function.__qualname__
    if module.partition(".")[0] not in PACKAGES or not name.isidentifier():
        raise ValueError(f"expected a function of a module of Regraft, got {module}:{name}")
    return f"{module}:{name}"


def find_function(name: str) -> Callable[..., Any]:
    """Return the function of a name.

    Raises:
        InputError: it is not there, because another version of Regraft is installed.
    """
    module, _, function = name.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"expected the same version of Regraft on all nodes: {error}") from error
    return found
