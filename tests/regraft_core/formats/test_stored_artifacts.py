"""Artifacts that refer to stored content: read in part, resumed, copied, and damaged."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.manifest_storage import check_digest
from regraft_core.formats.stored_artifacts import (
    content_file,
    content_folder,
    copy_artifact,
    keep,
    origin_of,
    save_work,
    working_folder,
)
from regraft_core.runtime.errors import InputError, RegraftError

MANIFEST = "thing.json"
SMALL = ("*.json", "*.txt")


def artifact(folder: Path, text: str = "bulk", uri: str = "minio://bucket/run/thing") -> Any:
    """Write what a step would, as the artifact of a cluster unless `uri` is the folder."""
    (folder / "part").mkdir(parents=True)
    (folder / MANIFEST).write_text("{}")
    (folder / "large.bin").write_text(text)
    (folder / "part" / "other.bin").write_text(f"other {text}")
    (folder / "part" / "small.txt").write_text("small")
    return SimpleNamespace(path=str(folder), uri=uri)


@pytest.fixture
def text(tmp_path: Path) -> str:
    """Content of this test alone, because a process fetches equal content once."""
    return f"bulk of {tmp_path}"


def files(folder: str | Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


@pytest.mark.parametrize("where", ["volume", "bucket"])
def test_on_a_cluster_an_artifact_keeps_its_small_files_and_refers_to_the_rest(
    where: str, tmp_path: Path, text: str, request: pytest.FixtureRequest
) -> None:
    root = str(tmp_path / "work")
    if where == "bucket":
        request.getfixturevalue("s3")
        import fsspec

        fsspec.filesystem("s3").mkdir("artifacts")
        root = "s3://artifacts/work"
    made = artifact(tmp_path / "run" / "thing", text)
    keep(made, "thing-1", MANIFEST, origin_of("step", {"work_dir": root}), SMALL)
    assert files(made.path) == ["content.json", "part/small.txt", MANIFEST]
    assert content_file(made.path, "large.bin").read_text() == text
    assert content_file(f"{made.path}/part", "other.bin").read_text() == f"other {text}"
    assert content_file(made.path, MANIFEST) == Path(made.path) / MANIFEST
    assert not content_file(made.path, "unknown.bin").exists()
    whole = content_folder(made.path)
    assert files(whole) == ["large.bin", "part/other.bin", "part/small.txt", MANIFEST]
    part = content_folder(f"{made.path}/part")
    assert files(part) == ["other.bin", "small.txt"]
    copy_artifact(f"{made.path}/part", tmp_path / "copy")
    assert files(tmp_path / "copy") == ["content.json", "small.txt"]
    assert content_file(tmp_path / "copy", "other.bin").read_text() == f"other {text}"


def test_on_this_machine_the_artifact_is_the_entry(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "thing"
    made = artifact(folder, uri=str(folder))
    keep(made, "thing-1", MANIFEST, origin_of("step", {"work_dir": str(tmp_path / "work")}), SMALL)
    assert made.uri == str(tmp_path / "work" / "thing-1")
    assert content_file(made.uri, "large.bin").read_text() == "bulk"
    again = artifact(folder, uri=str(folder))
    (folder / "part" / "small.txt").write_text("newer")
    keep(again, "thing-1", MANIFEST, origin_of("step", {"work_dir": str(tmp_path / "work")}), SMALL)
    assert again.uri == made.uri
    assert (Path(made.uri) / "part" / "small.txt").read_text() == "newer"
    assert not folder.exists()


def test_without_a_store_the_artifact_stays_whole(tmp_path: Path) -> None:
    made = artifact(tmp_path / "thing")
    keep(made, "thing-1", MANIFEST, origin_of("step", {"work_dir": ""}), SMALL)
    assert content_file(made.path, "large.bin") == tmp_path / "thing" / "large.bin"
    assert content_folder(made.path) == tmp_path / "thing"
    copy_artifact(f"{made.path}/part", tmp_path / "copy")
    assert files(tmp_path / "copy") == ["other.bin", "small.txt"]


@pytest.mark.parametrize("where", ["volume", "bucket"])
def test_gone_or_changed_content_is_an_error(
    where: str, tmp_path: Path, text: str, request: pytest.FixtureRequest
) -> None:
    root = str(tmp_path / "work")
    if where == "bucket":
        request.getfixturevalue("s3")
        import fsspec

        fsspec.filesystem("s3").mkdir("gone")
        root = "s3://gone/work"
    made = artifact(tmp_path / "thing", text)
    keep(made, "thing-1", MANIFEST, origin_of("step", {"work_dir": root}), SMALL)
    store = ContentStore(root)
    store.remove("thing-1")
    with pytest.raises(InputError, match=r"large\.bin: expected the stored content, found none"):
        content_file(made.path, "large.bin")
    store.add(Path(artifact(tmp_path / "other", text + " changed").path), "thing-1", MANIFEST)
    with pytest.raises(RegraftError, match=r"large\.bin: expected"):
        content_file(made.path, "large.bin")


def test_a_file_of_a_bucket_is_read_once_for_its_digest(
    tmp_path: Path, text: str, s3: None
) -> None:
    import fsspec

    fsspec.filesystem("s3").mkdir("once")
    made = artifact(tmp_path / "thing", text)
    keep(made, "thing-1", MANIFEST, origin_of("step", {"work_dir": "s3://once/work"}), SMALL)
    file, sha256 = content_file(made.path, "large.bin"), hashlib.sha256(text.encode()).hexdigest()
    found = file.stat()
    file.write_bytes(bytes(found.st_size))
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    check_digest(file, sha256, "fetch it again")  # it is not read again
    os.utime(file)
    with pytest.raises(InputError, match=r"large\.bin: expected SHA-256 .*; fetch it again"):
        check_digest(file, sha256, "fetch it again")


def test_interrupted_work_is_resumed_from_a_bucket(s3: None) -> None:
    import fsspec

    fsspec.filesystem("s3").mkdir("progress")
    first = working_folder("s3://progress/work", "step-1")
    assert first is not None
    (first / "epoch-1.npz").write_text("one")
    (first / "state.json").write_text("1")
    save_work(first)
    (first / "epoch-1.npz").unlink()
    (first / "epoch-2.npz").write_text("two")
    (first / "state.json").write_text("2")
    save_work(first)
    again = working_folder("s3://progress/work", "step-1")
    assert again is not None and again != first
    assert files(again) == ["epoch-2.npz", "state.json"]
    assert (again / "state.json").read_text() == "2"


def test_a_working_folder_on_a_disk_is_the_entry_itself(tmp_path: Path) -> None:
    assert working_folder(str(tmp_path), "step-1") == tmp_path / "step-1"
    assert working_folder("", "step-1") is None
    save_work(tmp_path)  # nothing to bring back


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd"])
def test_a_reference_never_leads_outside(tmp_path: Path, name: str) -> None:
    entry = {name: {"size": 1, "sha256": "0" * 64}}
    document = {"location": str(tmp_path / "store" / "x"), "files": entry}
    (tmp_path / "content.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="names below the artifact"):
        content_file(tmp_path, "large.bin")
