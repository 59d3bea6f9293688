"""The state of a source: it stays while nothing changed, and changes with any file."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regraft_core.runtime.errors import InputError
from regraft_core.sources.kinds import drive_id, kind_of_source
from regraft_core.sources.state import source_state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_the_state_of_a_folder_follows_its_files(folder: Path) -> None:
    state = source_state(str(folder))
    assert source_state(str(folder)) == state
    (folder / "cat" / "3.png").write_bytes(b"new")
    added = source_state(str(folder))
    (folder / "cat" / "3.png").unlink()
    assert source_state(str(folder)) == state != added
    os.utime(folder / "dog" / "1.png", ns=(1, 1))
    touched = source_state(str(folder))
    (folder / "dog" / "1.png").rename(folder / "dog" / "9.png")
    assert len({state, added, touched, source_state(str(folder))}) == 4


def test_links_in_a_folder_are_followed_and_circles_end(folder: Path, tmp_path: Path) -> None:
    before = source_state(str(folder))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").write_bytes(b"1")
    (folder / "bird").symlink_to(tmp_path / "elsewhere")
    linked = source_state(str(folder))
    (tmp_path / "elsewhere" / "1.png").write_bytes(b"12")
    assert len({before, linked, source_state(str(folder))}) == 3
    (folder / "cat" / "again").symlink_to(folder)
    (folder / "cat" / "broken").symlink_to(tmp_path / "nothing")
    assert source_state(str(folder))


def test_a_file_is_known_by_size_and_time_or_by_its_digest(tmp_path: Path) -> None:
    archive = tmp_path / "images.zip"
    archive.write_bytes(b"zip")
    state = source_state(str(archive))
    assert source_state(str(archive)) == state
    assert source_state(str(archive), "ab" * 32) == "ab" * 32
    archive.write_bytes(b"zipped")
    assert source_state(str(archive)) != state


def test_samples_are_of_the_version_and_drive_is_new_each_time() -> None:
    assert source_state("sample:digits") == source_state("sample:digits")
    drive = "gdrive:1nBE3N2cXQGwD8JaD0JZ2LmFD-n3D5hVU"
    assert source_state(drive) != source_state(drive)
    assert source_state(drive, "ab" * 32) == "ab" * 32


class _Files(http.server.BaseHTTPRequestHandler):
    """Responds to /ID with the status and the headers that the server was told."""

    def _respond(self) -> None:
        status, headers, head = self.server.told  # type: ignore[attr-defined]
        refused = self.command == "HEAD" and not head
        self.send_response(405 if refused else status)
        for name, value in {} if refused else headers.items():
            self.send_header(name, value)
        self.end_headers()

    do_GET = do_HEAD = _respond

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[tuple[str, http.server.HTTPServer]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/images.zip", server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize(
    "headers", [{"ETag": '"1"'}, {"Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT"}]
)
def test_a_url_is_known_by_its_validators(web: Any, headers: dict[str, str], head: bool) -> None:
    url, server = web
    server.told = (200, headers, head)
    state = source_state(url)
    assert source_state(url) == state
    server.told = (200, {name: f"{value}2" for name, value in headers.items()}, head)
    assert source_state(url) != state


def test_a_url_without_validators_is_new_each_time(web: Any) -> None:
    url, server = web
    server.told = (200, {"Content-Length": "0"}, True)
    assert source_state(url) != source_state(url)
    assert source_state(url, "ab" * 32) == "ab" * 32


@pytest.mark.parametrize(("status", "cause"), [(404, "not found"), (403, "no permission")])
def test_a_url_that_is_refused_is_an_error(web: Any, status: int, cause: str) -> None:
    url, server = web
    server.told = (status, {}, True)
    with pytest.raises(InputError, match=rf"images\.zip: {cause} \(HTTP {status}\)") as raised:
        source_state(f"{url.replace('//', '//me:secret@')}?signature=secret")
    assert "secret" not in str(raised.value)


def test_a_server_that_fails_is_left_to_ingest(web: Any) -> None:
    url, server = web
    server.told = (503, {}, True)
    assert source_state(url) != source_state(url)


def test_the_state_of_a_bucket_follows_its_objects(bucket: str) -> None:
    import fsspec

    store, path = fsspec.core.url_to_fs(f"{bucket}/images")
    store.pipe_file(f"{path}/cat/1.png", b"one")
    state = source_state(f"{bucket}/images")
    assert source_state(f"{bucket}/images") == state
    store.pipe_file(f"{path}/cat/1.png", b"two")
    changed = source_state(f"{bucket}/images")
    store.pipe_file(f"{path}/cat/2.png", b"two")
    assert len({state, changed, source_state(f"{bucket}/images")}) == 3
    with pytest.raises(InputError, match="expected files at"):
        source_state(f"{bucket}/nothing")


def test_what_is_no_source_is_refused_with_near_names(folder: Path) -> None:
    with pytest.raises(InputError, match="did you mean sample:digits"):
        kind_of_source("sample:digit")
    with pytest.raises(InputError, match=r"did you mean .*images"):
        kind_of_source(str(folder.parent / "image"))
    with pytest.raises(InputError, match="a Google Drive link to a file"):
        drive_id("https://drive.google.com/drive/folders/1nBE3N2cXQGwD8JaD0JZ2LmFD-n3D5hVU")
