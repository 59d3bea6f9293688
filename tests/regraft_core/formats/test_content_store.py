"""The content store: locally and in buckets, whole entries, references, and removed content."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from regraft_core.formats.content_store import (
    ContentStore,
    content_file,
    content_folder,
    refer_to,
)
from regraft_core.runtime.errors import InputError, RegraftError

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
    assert not store.holds("thing-1", MANIFEST)
    location = store.add(work(tmp_path / "a"), "thing-1", MANIFEST)
    assert location == store.location("thing-1")
    assert store.holds("thing-1", MANIFEST)
    assert store.names() == ["thing-1"]


def test_the_first_writer_of_a_name_wins(root: str, tmp_path: Path) -> None:
    store = ContentStore(root)
    store.add(work(tmp_path / "a", "first"), "thing-1", MANIFEST)
    store.add(work(tmp_path / "b", "second"), "thing-1", MANIFEST)
    artifact = work(tmp_path / "c", "first")
    refer_to(artifact, store.location("thing-1"), MANIFEST)
    assert content_file(artifact, "large.bin").read_text() == "first"


def test_a_reference_holds_the_manifest_and_reads_files_on_demand(
    root: str, tmp_path: Path
) -> None:
    store = ContentStore(root)
    artifact = work(tmp_path / "artifact")
    refer_to(artifact, store.location("thing-1"), MANIFEST)
    store.add(work(tmp_path / "bulk"), "thing-1", MANIFEST)
    assert sorted(p.name for p in artifact.rglob("*") if p.is_file()) == ["content.json", MANIFEST]
    assert content_file(artifact, "large.bin").read_text() == "bulk"
    assert content_file(artifact, "deep/other.bin").read_text() == "other"
    assert content_file(artifact, MANIFEST) == artifact / MANIFEST
    whole = content_folder(artifact)
    assert (whole / "deep" / "other.bin").read_text() == "other"
    assert not content_file(artifact, "unknown.bin").exists()


def test_an_artifact_that_is_whole_is_read_as_it_is(tmp_path: Path) -> None:
    folder = work(tmp_path / "a")
    assert content_file(folder, "large.bin") == folder / "large.bin"
    assert content_folder(folder) == folder


def test_removed_content_is_an_error_and_changes_the_generation(root: str, tmp_path: Path) -> None:
    store = ContentStore(root)
    only_here = f"bulk of {tmp_path}"  # a process fetches equal content once
    artifact = work(tmp_path / "artifact", only_here)
    refer_to(artifact, store.location("thing-1"), MANIFEST)
    store.add(work(tmp_path / "bulk", only_here), "thing-1", MANIFEST)
    before = store.generation()
    assert ContentStore(root).generation() == before
    store.remove(["thing-1"])
    assert ContentStore(root).generation() != before
    assert store.names() == []
    with pytest.raises(InputError, match=r"run again without the cache"):
        content_file(artifact, "large.bin")


def test_a_changed_file_is_noticed(root: str, tmp_path: Path) -> None:
    store = ContentStore(root)
    artifact = work(tmp_path / "artifact", f"bulk of {tmp_path}")
    refer_to(artifact, store.location("thing-1"), MANIFEST)
    store.add(work(tmp_path / "bulk", "changed"), "thing-1", MANIFEST)
    with pytest.raises(RegraftError, match=r"large\.bin"):
        content_file(artifact, "large.bin")


def test_a_broken_entry_is_replaced(tmp_path: Path) -> None:
    store = ContentStore(str(tmp_path / "store"))
    (tmp_path / "store" / "thing-1").mkdir(parents=True)  # as a writer without renames leaves it
    (tmp_path / "store" / "thing-1" / "large.bin").write_text("half")
    store.add(work(tmp_path / "a"), "thing-1", MANIFEST)
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


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd"])
def test_a_reference_never_leads_outside(tmp_path: Path, name: str) -> None:
    files = {name: {"size": 1, "sha256": "0" * 64}}
    document = {"location": str(tmp_path / "store" / "x"), "files": files}
    (tmp_path / "content.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="names below the artifact"):
        content_file(tmp_path, "large.bin")


def test_a_store_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.*: NotADirectoryError"):
        ContentStore(str(tmp_path / "file" / "store")).generation()
