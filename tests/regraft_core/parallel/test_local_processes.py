"""Local processes: results in order, few tasks in flight, and killed workers are repeated."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft_core.parallel import executor
from regraft_core.parallel.executor import find_function, fits, name_of
from regraft_core.parallel.local_processes import LocalProcesses
from regraft_core.runtime.errors import InputError, RegraftError


def die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_once(marker: Path) -> str:
    """Return the marker's name; the first process that gets `3` is killed."""
    if marker.name == "3" and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return marker.name


def refuse(number: int) -> int:
    raise InputError(f"expected no {number}")


def test_a_worker_that_is_always_killed_is_one_line() -> None:
    with pytest.raises(
        RegraftError, match=r"ingest: a worker process was killed 3 times; is there"
    ):
        list(LocalProcesses(2).map(die, range(8), "ingest"))


def test_the_tasks_of_a_killed_worker_are_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [tmp_path / str(number) for number in range(12)]
    results = LocalProcesses(2).map(die_once, tasks, "ingest")
    assert list(results) == [str(number) for number in range(12)]
    assert capsys.readouterr().out.count("a worker process was killed; its tasks are repeated") == 1


def test_an_error_of_a_task_is_raised() -> None:
    with pytest.raises(InputError, match="expected no 0"):
        list(LocalProcesses(2).map(refuse, range(8), "ingest"))


@pytest.mark.parametrize(("size", "most"), [(0, 6), (executor.MAX_BYTES // 2, 3)])
def test_results_are_in_order_with_few_tasks_in_flight(size: int, most: int) -> None:
    started = []

    def tasks() -> Iterator[int]:
        for number in range(40):
            started.append(number)
            yield number

    results = LocalProcesses(2).map(abs, tasks(), "ingest", lambda task: size)
    assert next(results) == 0
    assert len(started) <= most
    assert list(results) == list(range(1, 40))


def test_a_task_of_any_size_fits_alone() -> None:
    assert fits(0, 0, 2 * executor.MAX_BYTES, 1)
    assert not fits(1, 1, executor.MAX_BYTES, 8)
    assert not fits(8, 0, 0, 8)


def test_only_functions_of_modules_of_regraft_have_names() -> None:
    assert find_function(name_of(fits)) is fits
    for function in (os.getcwd, executor.Executor.map, lambda task: task):
        with pytest.raises(ValueError, match="expected a function of a module of Regraft"):
            name_of(function)
    with pytest.raises(InputError, match="expected the same version of Regraft on all nodes"):
        find_function("regraft_core.parallel.executor:of_another_version")
