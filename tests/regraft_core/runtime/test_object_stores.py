"""URIs of object stores."""

from __future__ import annotations

import fsspec
import pytest

from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import is_store_uri, open_store_uri


@pytest.mark.parametrize(
    ("location", "expected"),
    [("s3://b/x", True), ("gs://b", True), ("file:///x", False), ("/x", False), ("x:y", False)],
)
def test_uris_are_distinguished_from_paths(location: str, expected: bool) -> None:
    assert is_store_uri(location) is expected


def test_a_uri_opens_its_store(bucket: str) -> None:
    store, path = open_store_uri(f"{bucket}/folder/")
    store.pipe_file(f"{path}/a.txt", b"x")
    assert fsspec.filesystem(bucket.split(":")[0]).cat_file(f"{bucket}/folder/a.txt") == b"x"
    with pytest.raises(FileExistsError):
        store.pipe_file(f"{path}/a.txt", b"y", mode="create")


def test_a_scheme_without_its_package_names_what_to_install() -> None:
    with pytest.raises(InputError, match=r"abfs:// needs packages.*the extra \[cloud\]"):
        open_store_uri("abfs://container/a")
    with pytest.raises(InputError, match="cannot open nosuch://: Protocol not known"):
        open_store_uri("nosuch://user:secret@host/a")
