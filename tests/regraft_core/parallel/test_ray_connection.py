"""What a node checks before the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_none

from regraft_core.parallel import ray_connection
from regraft_core.parallel.ray_connection import check_node
from regraft_core.runtime.errors import InputError, UnavailableError
from regraft_core.runtime.version import code_digest


def test_a_node_writes_to_the_folders_of_results(tmp_path: Path) -> None:
    check_node(code_digest(), [], [], [str(tmp_path)])
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"^cannot write to .*file: "):
        (tmp_path / "file").touch()
        check_node(code_digest(), [], [], [str(tmp_path / "file")])


class Store:
    """A store whose first requests fail."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    def info(self, path: str) -> None:
        if self._errors:
            raise self._errors.pop(0)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([TimeoutError("late")] * 2, None),
        ([TimeoutError("late")] * 3, UnavailableError),
        ([PermissionError("forbidden")], InputError),
    ],
)
def test_a_bucket_that_fails_is_asked_again(
    errors: list[Exception], expected: type[InputError] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: tuple[Any, str] = (Store(*errors), "images")
    monkeypatch.setattr(ray_connection, "open_store_uri", lambda uri: store)
    monkeypatch.setattr(ray_connection._check_bucket.retry, "wait", wait_none())  # type: ignore[attr-defined]
    if expected is None:
        check_node(code_digest(), [], ["s3://bucket/images"], [])
        return
    with pytest.raises(expected) as raised:
        check_node(code_digest(), [], ["s3://bucket/images"], [])
    assert type(raised.value) is expected
    assert type(ray_connection._lacking("a", raised.value)) is expected
