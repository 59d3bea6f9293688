"""The files of a request log: private, bounded, complete or recoverable."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from regraft_core.formats.request_log import (
    LoggedAnswer,
    LoggedRequest,
    log_files,
    log_line,
    read_request_log,
)
from regraft_core.runtime.errors import InputError
from serving.server.recording.log_files import LogFiles

MB = 1 << 20
REQUEST = LoggedRequest("now", "m", "s", "a" * 64, LoggedAnswer(1, "cat", 0.5, None, ""))


def line(number: int, noise: int = 0) -> bytes:
    """Return a line of an image with `noise` bytes that cannot be compressed."""
    image = random.Random(number).randbytes(noise)
    return log_line(replace(REQUEST, sha256=f"{number:064x}", image=image))


def write_and_flush(files: LogFiles, text: bytes) -> None:
    files.write(text)
    files.flush()


def numbers(folder: Path) -> list[int]:
    return [int(one.sha256, 16) for one in read_request_log(folder)]


def test_the_folder_and_its_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "log"
    files = LogFiles(folder, MB)
    assert files.write(line(1))
    files.close()
    (file,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert gzip.decompress(file.read_bytes()) == line(1)


def test_what_was_flushed_can_be_read_before_the_file_is_complete(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "log", MB)
    files.write(line(1))
    files.write(line(2))
    files.flush()
    files.write(line(3))
    assert numbers(tmp_path / "log") == [1, 2]
    files.close()
    assert numbers(tmp_path / "log") == [1, 2, 3]


def test_the_oldest_files_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    (tmp_path / "log").mkdir(mode=0o700)
    (folder / "keep.txt").write_bytes(b"x" * MB)
    largest = 0
    for start in (0, 150):  # as after a restart
        files = LogFiles(folder, MB)
        for number in range(start, start + 150):
            assert files.write(line(number, 20_000))
            files.flush()
            largest = max(largest, sum(p.stat().st_size for p in log_files(folder)))
        files.close()
    assert MB * 0.7 < largest <= MB
    kept = numbers(folder)
    assert kept == list(range(300 - len(kept), 300))
    assert len(kept) > 20
    assert (folder / "keep.txt").exists()


def test_lines_that_compress_well_share_a_file(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "log", MB)
    for number in range(3000):
        assert files.write(line(number))
    files.close()
    assert numbers(tmp_path / "log") == list(range(3000))
    assert len(log_files(tmp_path / "log")) == 1


def test_a_line_larger_than_a_file_is_refused(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "log", MB)
    assert not files.write(line(1, MB))
    assert files.write(line(2))
    files.close()
    assert numbers(tmp_path / "log") == [2]


def test_only_one_server_writes_to_a_folder(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "log", MB)
    with pytest.raises(InputError, match="that no other server writes to"):
        LogFiles(tmp_path / "log", MB)
    files.close()
    LogFiles(tmp_path / "log", MB).close()


def test_links_and_open_folders_are_refused(tmp_path: Path) -> None:
    folder, link, file = tmp_path / "open", tmp_path / "link", tmp_path / "file"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(InputError, match=f"with mode 755; run chmod 700 {folder}"):
        LogFiles(folder, MB)
    folder.chmod(0o700)
    link.symlink_to(folder, target_is_directory=True)
    with pytest.raises(InputError, match=f"expected a folder at {link}, got a link"):
        LogFiles(link, MB)
    file.write_text("x")
    with pytest.raises(InputError, match="--request-log: expected a folder at"):
        LogFiles(file, MB)
    assert not list(folder.iterdir())


def test_a_link_among_the_files_is_neither_followed_nor_deleted(tmp_path: Path) -> None:
    folder, outside = tmp_path / "log", tmp_path / "outside"
    folder.mkdir(mode=0o700)
    outside.write_bytes(b"x" * 2 * MB)
    (folder / "requests-20000101T000000000000Z.jsonl.gz").symlink_to(outside)
    files = LogFiles(folder, MB)
    files.write(line(1))
    files.close()
    assert outside.stat().st_size == 2 * MB
    assert len(log_files(folder)) == 2


def test_a_deleted_folder_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    files = LogFiles(folder, MB)
    files.write(line(1))
    shutil.rmtree(folder)
    files.flush()
    files.write(line(2))
    files.close()
    assert numbers(folder) == [2]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_after_an_error_a_new_file_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = LogFiles(tmp_path / "log", MB)
    files.write(line(1))
    files.flush()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                write_and_flush(files, line(2))
    files.write(line(3))
    files.close()
    assert numbers(tmp_path / "log") == [1, 3]
    assert len(log_files(tmp_path / "log")) == 2
