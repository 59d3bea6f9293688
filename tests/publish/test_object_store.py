from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from components.core.errors import InputError
from components.core.exported import check_fingerprint
from serving.object_store import ObjectStore
from serving.publish import (
    open_store,
    publish_saved_model,
    read_labels,
    retain,
    rollback,
    set_label,
)

PLACE = "memory://bucket/models"


@pytest.fixture
def files() -> Iterator[fsspec.AbstractFileSystem]:
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def add(exported: Path) -> int:
    return open_store(PLACE, "m").add(exported, check_fingerprint)


def test_a_published_version_is_read_back_whole(
    exported: Path, files: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    version = publish_saved_model(exported, PLACE, "m", label="canary")
    assert (version.number, version.path) == (1, f"{PLACE}/m/1")
    assert read_labels(PLACE, "m") == {"canary": 1}
    files.get("/bucket/models/m/1/", f"{tmp_path / 'got'}/", recursive=True)
    check_fingerprint(tmp_path / "got")


def test_the_graph_is_written_last(
    exported: Path, files: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    put_file = type(files).put_file

    def recording(
        self: fsspec.AbstractFileSystem, source: str, target: str, **kwargs: object
    ) -> None:
        written.append(target)
        put_file(self, source, target, **kwargs)

    monkeypatch.setattr(type(files), "put_file", recording)
    add(exported)
    assert written[-1].endswith("/1/saved_model.pb")
    assert len(written) == len([p for p in exported.rglob("*") if p.is_file()])


def test_an_interrupted_upload_is_no_version_and_its_number_is_not_used_again(
    exported: Path, files: fsspec.AbstractFileSystem
) -> None:
    add(exported)
    add(exported)
    files.rm_file("/bucket/models/m/2/saved_model.pb")
    assert open_store(PLACE, "m").versions() == [1]
    assert add(exported) == 3


def test_two_publishers_get_distinct_versions(
    exported: Path, files: fsspec.AbstractFileSystem
) -> None:
    numbers: list[int] = []
    threads = [threading.Thread(target=lambda: numbers.append(add(exported))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [1, 2, 3, 4]


def test_rollback_labels_and_retention(exported: Path, files: fsspec.AbstractFileSystem) -> None:
    for _ in range(4):
        add(exported)
    set_label(PLACE, "m", "stable", 1)
    set_label(PLACE, "m", "canary")
    assert rollback(PLACE, "m").number == 3
    assert read_labels(PLACE, "m") == {"stable": 1, "canary": 3}
    assert files.exists("/bucket/models/m/.withdrawn-4/saved_model.pb")
    assert retain(PLACE, "m", 1) == [2]
    assert open_store(PLACE, "m").versions() == [1, 3]
    assert add(exported) == 5


def test_a_store_without_its_package_says_what_to_install() -> None:
    with pytest.raises(InputError, match="expected a folder, s3:// or gs://"):
        ObjectStore("nosuch://bucket", "m")
    if importlib.util.find_spec("s3fs") is None:
        with pytest.raises(InputError, match=r"s3:// needs the package s3fs.*regraft\[cloud\]"):
            ObjectStore("s3://bucket", "m")
