"""Addresses of object stores, and the model in service found and copied from one."""

from __future__ import annotations

import fsspec
import pytest

from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import is_address, open_address


@pytest.mark.parametrize(
    ("place", "expected"),
    [("s3://b/x", True), ("gs://b", True), ("file:///x", False), ("/x", False), ("x:y", False)],
)
def test_addresses_are_told_from_paths(place: str, expected: bool) -> None:
    assert is_address(place) is expected


def test_an_address_opens_its_store(bucket: str) -> None:
    store, path = open_address(f"{bucket}/folder/")
    store.pipe_file(f"{path}/a.txt", b"x")
    assert fsspec.filesystem(bucket.split(":")[0]).cat_file(f"{bucket}/folder/a.txt") == b"x"
    with pytest.raises(FileExistsError):
        store.pipe_file(f"{path}/a.txt", b"y", mode="create")


def test_a_scheme_without_its_package_says_what_to_install() -> None:
    with pytest.raises(InputError, match=r"abfs:// needs packages.*-e '\.\[cloud\]'"):
        open_address("abfs://container/a")
    with pytest.raises(InputError, match="cannot open nosuch://: Protocol not known"):
        open_address("nosuch://user:secret@host/a")
