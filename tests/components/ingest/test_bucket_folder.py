"""Folders in buckets: listed once, images read by workers, and a store that fails."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from components.ingest import image_reader
from components.ingest.ingest import ingest
from components.ingest.sources.bucket_folder import copy_names, with_urls
from components.ingest.sources.folders import LabeledFile
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import UnavailableError
from tests.components.ingest.forms import hugging_face, items_of

OPTIONS = IngestOptions(processes=1, download_attempts=3, download_backoff_s=0)


class Flaky(MemoryFileSystem):
    """A store some of whose objects cannot be opened the first times."""

    protocol = "flaky"
    failures: ClassVar[Counter[str]] = Counter()
    opened: ClassVar[list[str]] = []
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("flaky://", "memory://")))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "rb":
            self.opened.append(path)
            if self.failures[path]:
                self.failures[path] -= 1
                raise OSError("slow down")
        return super()._open(path, mode, **options)


@pytest.fixture
def flaky(shapes: Path) -> str:
    """The URI of a folder with images."""
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    files = fsspec.filesystem("flaky")
    for path in shapes.rglob("*.png"):
        files.pipe_file(f"/set/{path.relative_to(shapes)}", path.read_bytes())
    Flaky.failures.clear()
    Flaky.opened.clear()
    return "flaky://set"


def test_requests_are_repeated_and_reported(
    flaky: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Flaky.failures.update({"/set/circle/003.png": 2, "/set/cross/010.png": 1})
    found = ingest([flaky], tmp_path / "out", OPTIONS)
    assert found.digest == DatasetManifest.read(dataset).digest
    assert "ingest: 3 requests for images failed and were repeated" in capsys.readouterr().out
    assert len(Flaky.opened) == 120 + 3  # each image is read once


def test_an_image_that_never_arrives_leaves_no_dataset(flaky: str, tmp_path: Path) -> None:
    Flaky.failures["/set/circle/003.png"] = 9
    message = r"^flaky://set/circle/003\.png: OSError: slow down \(3 attempts\)$"
    with pytest.raises(UnavailableError, match=message):
        ingest([flaky], tmp_path / "out", OPTIONS)
    assert not list(tmp_path.iterdir())


def test_only_images_with_a_url_are_read_later(flaky: str, tmp_path: Path) -> None:
    files = fsspec.filesystem("flaky")
    for name in ("labels.csv", "a/#1.png", "ab::c.png"):
        files.pipe_file(f"/odd/{name}", b"content")
    files.pipe_file("/odd/a/1.png", b"image")
    copy_names("flaky://odd/", tmp_path, OPTIONS)
    listed = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    found = with_urls((LabeledFile(str(path), "", "") for path in listed), "flaky://odd/", tmp_path)
    contents = {
        str(path.relative_to(tmp_path)): (
            path.read_bytes(),
            file.file.startswith("flaky://odd/a/1"),
        )
        for path, file in zip(listed, found, strict=True)
    }
    assert contents == {
        "a/#1.png": (b"content", False), "a/1.png": (b"", True),
        "ab::c.png": (b"content", False), "labels.csv": (b"content", False),
    }  # fmt: skip


def test_an_image_that_only_an_annotation_names_is_quarantined(
    images: Path, tmp_path: Path
) -> None:
    items = [*items_of(images), ("lost.png", "cat", b"")]
    files = fsspec.filesystem("memory")
    for path in hugging_face(tmp_path / "named", items).iterdir():
        if path.name != "lost.png":
            files.pipe_file(f"/named/{path.name}", path.read_bytes())
    ingest(["memory://named"], tmp_path / "out", OPTIONS)
    assert DatasetManifest.read(tmp_path / "out").quarantined == {"missing-file": 1}


def test_absolute_names_have_a_url_if_the_folder_is_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.filesystem("memory").pipe_file("/relative/a.png", b"image")
    monkeypatch.chdir(tmp_path)
    copy_names("memory://relative", Path("work"), OPTIONS)
    named = LabeledFile(str(tmp_path / "work" / "a.png"), "a.png", "")
    (found,) = with_urls([named], "memory://relative", Path("work"))
    assert found.file == "memory://relative/a.png"


def test_large_images_are_read_one_at_a_time_up_to_a_limit(
    flaky: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_reader, "BYTES_PER_REMOTE_READ", 10)
    monkeypatch.setattr(image_reader, "MAX_IMAGE_BYTES", 20_000)
    files = fsspec.filesystem("flaky")
    files.pipe_file("/set/circle/large.png", b"\0" * 20_001)
    try:
        found = ingest([flaky], tmp_path / "out", OPTIONS)
    finally:
        files.rm("/set/circle/large.png")
    assert found.digest == DatasetManifest.read(dataset).digest
    assert found.quarantined == {"unreadable": 1}
    assert len(Flaky.opened) == 2 * 121
