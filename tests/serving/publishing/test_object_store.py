"""Versions in local servers of S3 and Google Cloud Storage."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from regraft_core.formats.fingerprint import check_fingerprint
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import open_store_uri
from serving.publishing.object_store import ObjectStore
from serving.publishing.publish import (
    Once,
    delete_old_versions,
    open_store,
    publish_saved_model,
    publish_version,
    read_labels,
    rollback,
    set_label,
)


@pytest.fixture
def destination(bucket: str) -> str:
    """A destination in a bucket of S3, and in one of Google Cloud Storage."""
    return f"{bucket}/models"


def add(exported: Path, destination: str) -> int:
    return open_store(destination, "m").add(exported, check_fingerprint)


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)
def test_a_published_version_is_read_back(
    exported: Path, destination: str, tmp_path: Path, reported: Callable[[], dict[str, str]]
) -> None:
    version = publish_saved_model(exported, destination, "m", label="canary")
    assert (version.number, version.path) == (1, f"{destination}/m/1")
    assert read_labels(destination, "m") == {"canary": 1}
    done, total = reported()["publish: MB uploaded"].split(" of ")
    assert done == total
    files, path = open_store_uri(version.path)
    files.get(f"{path}/", f"{tmp_path / 'got'}/", recursive=True)
    check_fingerprint(tmp_path / "got")


def test_the_graph_is_written_last(
    exported: Path, destination: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    files, _ = open_store_uri(destination)
    put_file = files.put_file

    def recording(source: str, target: str, **kwargs: Any) -> None:
        written.append(target)
        put_file(source, target, **kwargs)

    monkeypatch.setattr(files, "put_file", recording)
    add(exported, destination)
    assert written[-1].endswith("/1/saved_model.pb")
    assert len(written) == len([p for p in exported.rglob("*") if p.is_file()])


def test_an_interrupted_upload_is_not_a_version_and_its_number_is_not_used_again(
    exported: Path, destination: str
) -> None:
    add(exported, destination)
    add(exported, destination)
    files, path = open_store_uri(destination)
    files.rm_file(f"{path}/m/2/saved_model.pb")
    assert open_store(destination, "m").versions() == [1]
    assert add(exported, destination) == 3


def test_concurrent_publishers_get_distinct_versions(exported: Path, destination: str) -> None:
    numbers: list[int] = []
    threads = [
        threading.Thread(target=lambda: numbers.append(add(exported, destination)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [1, 2, 3, 4]


def test_two_that_confirm_before_the_other_is_visible_both_add_a_whole_version(
    exported: Path, destination: str, tmp_path: Path
) -> None:
    """Buckets have no locks; a folder has, so that there one of both is refused."""
    moment = threading.Barrier(2, timeout=60)

    def confirm() -> None:
        moment.wait()

    def publish(_: int) -> int:
        once = Once(SavedModelManifest.read(exported).digest)
        return publish_version(
            exported, destination, "m", once, confirm=confirm, served=True
        ).number

    with ThreadPoolExecutor(2) as publishers:
        numbers = sorted(publishers.map(publish, range(2)))
    assert numbers == open_store(destination, "m").versions() == [1, 2]
    files, path = open_store_uri(f"{destination}/m")
    files.get(f"{path}/", f"{tmp_path / 'got'}/", recursive=True)
    for number in numbers:
        check_fingerprint(tmp_path / "got" / str(number))


def test_rollback_labels_and_retention(exported: Path, destination: str) -> None:
    for _ in range(4):
        add(exported, destination)
    set_label(destination, "m", "stable", 1)
    set_label(destination, "m", "canary")
    assert rollback(destination, "m").number == 3
    assert read_labels(destination, "m") == {"stable": 1, "canary": 3}
    files, path = open_store_uri(destination)
    assert files.exists(f"{path}/m/.withdrawn-4/saved_model.pb")
    assert delete_old_versions(destination, "m", 1) == [2]
    assert open_store(destination, "m").versions() == [1, 3]
    assert add(exported, destination) == 5


def test_an_unsupported_store_is_rejected() -> None:
    with pytest.raises(InputError, match="cannot open nosuch://"):
        ObjectStore("nosuch://bucket", "m")
    with pytest.raises(InputError, match=r"the extra \[cloud\]"):
        ObjectStore("abfs://container", "m")
