"""Processes of a group: which of their errors are those of another process that was lost."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from ray.exceptions import RayTaskError

from regraft_core.parallel.ray_group import LostConnectionError, Member, Place, _cause_of
from regraft_core.runtime.errors import InputError

PLACE = Place(0, ("127.0.0.1:1",))


def fail(task: str, place: Place) -> None:
    """Raise the error of a name."""
    if task == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    if task == "connection":
        raise ConnectionResetError("reset by peer")
    if task == "collective":
        from tensorflow import errors

        raise errors.UnavailableError(None, None, "Collective ops is aborted")
    raise KeyError(task)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("connection", LostConnectionError),
        ("collective", LostConnectionError),
        ("disk", OSError),
        ("other", KeyError),
    ],
)
def test_only_the_errors_of_a_lost_connection_are_told_apart(
    task: str, expected: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(variable, "1")
    with pytest.raises(expected):
        Member().run(str(tmp_path), f"{fail.__module__}:fail", task, PLACE)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), InputError("expected")])
def test_an_error_of_the_function_ends_all_attempts_at_once(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        _cause_of(RayTaskError("run", "", error), [])
    assert raised.value.args == error.args
