"""The store of versions in a folder: links are refused, and modes follow the umask."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from regraft_core.runtime.errors import InputError
from serving.publishing.folder_store import FolderStore
from serving.publishing.publish import confirmed


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder in the form of an export, which only its user can read."""
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/values"):
        (folder / name).write_bytes(b"data")
        (folder / name).chmod(0o600)
    folder.chmod(0o700)
    return folder


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)]
)
def test_a_version_is_readable_as_the_umask_says(model, tmp_path, umask, file, folder) -> None:
    before = os.umask(umask)
    try:
        FolderStore(tmp_path / "models").add(model, lambda _: None, confirmed)
    finally:
        os.umask(before)
    version = tmp_path / "models" / "1"
    for path in (version, *version.rglob("*")):
        assert path.stat().st_mode & 0o777 == (folder if path.is_dir() else file)


def test_a_link_in_a_model_is_not_published(model: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (model / "assets").symlink_to(tmp_path / "secret")
    store = FolderStore(tmp_path / "models")
    with pytest.raises(InputError, match="assets: expected a file or folder, found a link"):
        store.add(model, lambda _: None, confirmed)
    assert store.versions() == []
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".lock"]


def test_a_lock_that_is_a_link_truncates_nothing(model: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / ".lock").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="found a link"):
        FolderStore(tmp_path / "models").add(model, lambda _: None, confirmed)
    assert (tmp_path / "secret").read_text() == "secret"
