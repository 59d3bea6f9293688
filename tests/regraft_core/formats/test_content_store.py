"""The content store: locally and in buckets, whole entries, references, and removed content."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from regraft_core.formats.content_store import ContentStore
from regraft_core.runtime.errors import InputError

MANIFEST = "thing.json"


@pytest.fixture(params=["local", "s3", "gs"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The root of an empty store, on the disk and in each kind of object store."""
    if request.param == "local":
        return str(tmp_path / "store")
    import fsspec

    request.getfixturevalue({"s3": "s3", "gs": "gcs"}[request.param])
    name = f"content-{abs(hash(str(tmp_path))) % 10**9}"
    fsspec.filesystem(request.param).mkdir(name)
    return f"{request.param}://{name}/work"


def work(folder: Path, text: str = "bulk") -> Path:
    """Write what a step would: a manifest and two files."""
    (folder / "deep").mkdir(parents=True)
    (folder / MANIFEST).write_text("{}")
    (folder / "large.bin").write_text(text)
    (folder / "deep" / "other.bin").write_text("other")
    return folder


def test_an_entry_is_found_whole(root: str, tmp_path: Path) -> None:
    store = ContentStore(root)
    assert not store.contains("thing-1", MANIFEST)
    location = store.add(work(tmp_path / "a"), "thing-1", MANIFEST)
    assert location == store.location("thing-1")
    assert store.contains("thing-1", MANIFEST)
    (found,) = store.usage().items()
    assert found[0] == "thing-1"
    assert found[1].size == len("{}" + "bulk" + "other")
    assert found[1].files == {MANIFEST, "large.bin", "deep/other.bin"}
    assert abs(found[1].changed - time.time()) < 3600


def test_the_first_writer_of_a_name_wins(root: str, tmp_path: Path) -> None:
    store = ContentStore(root)
    store.add(work(tmp_path / "a", "first"), "thing-1", MANIFEST)
    store.add(work(tmp_path / "b", "second"), "thing-1", MANIFEST)
    store.fetch("thing-1", "large.bin", tmp_path / "read") if store.remote else None
    read = tmp_path / "read" if store.remote else Path(store.location("thing-1")) / "large.bin"
    assert read.read_text() == "first"


def test_a_removed_entry_is_gone(root: str, tmp_path: Path) -> None:
    store = ContentStore(root)
    for name in ("thing-1", "thing-10"):
        store.add(work(tmp_path / name), name, MANIFEST)
    store.remove("thing-1", MANIFEST)
    assert not store.contains("thing-1", MANIFEST)
    assert list(store.usage()) == ["thing-10"]


def test_the_generation_is_that_of_one_store(root: str) -> None:
    store = ContentStore(root)
    before = store.generation()
    assert ContentStore(root).generation() == before
    store.remove_record("generation")
    assert ContentStore(root).generation() != before


def test_records_are_small_files_beside_the_entries(root: str) -> None:
    store = ContentStore(root)
    assert store.read_record(".runs/1.json") is None
    assert store.records(".runs") == {}
    store.write_record(".runs/1.json", "one")
    store.write_record(".runs/1.json", "two")
    assert store.read_record(".runs/1.json") == "two"
    assert list(store.records(".runs")) == [".runs/1.json"]
    store.remove_record(".runs/1.json")
    store.remove_record(".runs/1.json")
    assert store.read_record(".runs/1.json") is None


def test_work_in_progress_becomes_the_entry(tmp_path: Path) -> None:
    store = ContentStore(str(tmp_path / "store"))
    (tmp_path / "store" / "thing-1").mkdir(parents=True)
    (tmp_path / "store" / "thing-1" / "large.bin").write_text("half")
    store.add(work(tmp_path / "a"), "thing-1", MANIFEST)
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["thing-1"]
    assert (tmp_path / "store" / "thing-1" / "large.bin").read_text() == "bulk"


def _add(root: str, folder: str) -> None:
    ContentStore(root).add(work(Path(folder)), "thing-1", MANIFEST)


def test_writers_at_once_leave_one_whole_entry(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add, args=(root, str(tmp_path / f"w{n}"))) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["thing-1"]
    assert (tmp_path / "store" / "thing-1" / "large.bin").read_text() == "bulk"


def test_a_store_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.*: NotADirectoryError"):
        ContentStore(str(tmp_path / "file" / "store")).generation()
