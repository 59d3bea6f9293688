from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from regraft_core.formats.fingerprint import check_fingerprint
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import open_store_uri
from serving.publishing.object_store import ObjectStore
from serving.publishing.publish import (
    open_store,
    publish_saved_model,
    read_labels,
    retain,
    rollback,
    set_label,
)


@pytest.fixture
def place(bucket: str) -> str:
    """A destination in a bucket of S3, and in one of Google Cloud Storage."""
    return f"{bucket}/models"


def add(exported: Path, place: str) -> int:
    return open_store(place, "m").add(exported, check_fingerprint)


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)
def test_a_published_version_is_read_back_whole(exported: Path, place: str, tmp_path: Path) -> None:
    version = publish_saved_model(exported, place, "m", label="canary")
    assert (version.number, version.path) == (1, f"{place}/m/1")
    assert read_labels(place, "m") == {"canary": 1}
    files, path = open_store_uri(version.path)
    files.get(f"{path}/", f"{tmp_path / 'got'}/", recursive=True)
    check_fingerprint(tmp_path / "got")


def test_the_graph_is_written_last(
    exported: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    files, _ = open_store_uri(place)
    put_file = files.put_file

    def recording(source: str, target: str, **kwargs: Any) -> None:
        written.append(target)
        put_file(source, target, **kwargs)

    monkeypatch.setattr(files, "put_file", recording)
    add(exported, place)
    assert written[-1].endswith("/1/saved_model.pb")
    assert len(written) == len([p for p in exported.rglob("*") if p.is_file()])


def test_an_interrupted_upload_is_no_version_and_its_number_is_not_used_again(
    exported: Path, place: str
) -> None:
    add(exported, place)
    add(exported, place)
    files, path = open_store_uri(place)
    files.rm_file(f"{path}/m/2/saved_model.pb")
    assert open_store(place, "m").versions() == [1]
    assert add(exported, place) == 3


def test_two_publishers_get_distinct_versions(exported: Path, place: str) -> None:
    numbers: list[int] = []
    threads = [
        threading.Thread(target=lambda: numbers.append(add(exported, place))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [1, 2, 3, 4]


def test_rollback_labels_and_retention(exported: Path, place: str) -> None:
    for _ in range(4):
        add(exported, place)
    set_label(place, "m", "stable", 1)
    set_label(place, "m", "canary")
    assert rollback(place, "m").number == 3
    assert read_labels(place, "m") == {"stable": 1, "canary": 3}
    files, path = open_store_uri(place)
    assert files.exists(f"{path}/m/.withdrawn-4/saved_model.pb")
    assert retain(place, "m", 1) == [2]
    assert open_store(place, "m").versions() == [1, 3]
    assert add(exported, place) == 5


def test_a_store_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="cannot open nosuch://"):
        ObjectStore("nosuch://bucket", "m")
    with pytest.raises(InputError, match=r"pip install -c constraints.txt -e '.\[cloud\]'"):
        ObjectStore("abfs://container", "m")
