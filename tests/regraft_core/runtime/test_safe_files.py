"""Files are never written through links, and their modes follow the umask."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft_core.formats.manifest_storage import staged_folder, write_text
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.safe_files import (
    copy_file,
    lock_file,
    new_file,
    new_folder,
    refuse_links,
    replaced_file,
)


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_text_is_not_written_through_a_link_with_the_old_temporary_name(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".report.html.{os.getpid()}.tmp").symlink_to(victim)
    (tmp_path / "report.html").symlink_to(victim)
    write_text(tmp_path / "report.html", "new")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "report.html").is_symlink()
    assert (tmp_path / "report.html").read_text() == "new"


def test_a_replaced_file_is_old_or_complete(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "a.npz").symlink_to(tmp_path / "victim")
    with pytest.raises(KeyError), replaced_file(tmp_path / "a.npz") as file:
        file.write(b"half")
        raise KeyError
    assert (tmp_path / "a.npz").read_text() == "precious"
    with replaced_file(tmp_path / "a.npz") as file:
        file.write(b"whole")
    assert (tmp_path / "a.npz").read_bytes() == b"whole"
    assert (tmp_path / "victim").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "victim"]


def test_what_killed_processes_left_in_the_folder_is_removed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    old, new, link = (f".run.json.{digit * 16}.tmp" for digit in "0ab")
    for name in (old, new, ".notes.tmp", f"run.json.{'0' * 16}.tmp"):
        (tmp_path / name).write_text("half")
        if name != new:
            os.utime(tmp_path / name, (0, 0))
    (tmp_path / link).symlink_to(tmp_path / "victim")
    os.utime(tmp_path / link, (0, 0), follow_symlinks=False)
    write_text(tmp_path / "another.json", "new")
    kept = {new, ".notes.tmp", f"run.json.{'0' * 16}.tmp", "another.json", "victim"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.json", "\udcff")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_keeps_the_content_of_its_file(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("precious")
    with lock_file(tmp_path / ".lock"):
        pass
    assert (tmp_path / ".lock").read_text() == "precious"


@pytest.mark.parametrize("exists", [True, False])
def test_a_lock_that_is_a_link_is_refused(tmp_path: Path, exists: bool) -> None:
    victim = tmp_path / "victim"
    if exists:
        victim.write_text("precious")
    (tmp_path / ".lock").symlink_to(victim)
    with pytest.raises(InputError, match="found a link"), lock_file(tmp_path / ".lock"):
        pass
    assert victim.exists() == exists


def test_modes_follow_the_umask(tmp_path: Path, umask: int) -> None:
    descriptor, file = new_file(tmp_path, "a")
    os.close(descriptor)
    with staged_folder(tmp_path / "out") as folder:
        write_text(folder / "a.json", "{}")
    for path in (tmp_path / "out", new_folder(tmp_path, ".a-")):
        assert path.stat().st_mode & 0o777 == 0o777 & ~umask
    for path in (file, tmp_path / "out" / "a.json"):
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("target", ["/etc/passwd", "a", "nothing", ".."])
def test_a_folder_with_a_link_is_refused(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "model" / "assets"
    folder.mkdir(parents=True)
    (folder / "a").touch()
    refuse_links(tmp_path / "model")
    (folder / "link").symlink_to(target)
    with pytest.raises(InputError, match=r"assets/link: expected a file or folder, found a link"):
        refuse_links(tmp_path / "model")


@pytest.mark.parametrize("kernel", ["copies", "cannot", "stops", "is old"])
def test_a_file_is_copied_whole(
    kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*arguments: int) -> int:
        raise OSError(errno.EXDEV, "other file system")

    if kernel == "is old":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    elif kernel != "copies":
        copied = cannot if kernel == "cannot" else lambda *arguments: 0
        monkeypatch.setattr(os, "copy_file_range", copied, raising=False)
    for size in (0, 1, 3_000_001):
        source, target = tmp_path / f"{size}", tmp_path / f"{size}.copy"
        source.write_bytes(os.urandom(size))
        target.write_bytes(b"before")
        copy_file(str(source), str(target))
        assert target.read_bytes() == source.read_bytes()
