"""Paths of Windows are refused with the path under WSL, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft.cli.windows_paths import check_paths
from regraft_core.runtime.errors import InputError
from tests.command_line import Regraft


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (r"C:\photos\my cats", "it is /mnt/c/photos/my cats"),
        ("d:/photos", "it is /mnt/d/photos"),
        (r"--out=E:\runs", "it is /mnt/e/runs"),
        ("C:photoscats", "write /mnt/c/... with slashes"),
        (r"\\nas\photos", "mount the share"),
    ],
)
def test_a_path_of_windows_gets_the_one_under_wsl(
    regraft: Regraft, words: str, expected: str
) -> None:
    ended = regraft("run", words)
    path = words.removeprefix("--out=")
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert f"{path}: expected a path of this system, got one of Windows; under WSL, {expected}" in (
        ended.err
    )


def test_other_words_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["s3://bucket/x", "http://a/b", "hub:dinov2", "sample:digits", "top:3", "a:0.9",
             "image:tag", "127.0.0.1:8500", "SECRET:KEY=NAME", "--who=a:b",
             r"\x", "-C", "c:0"]  # fmt: skip
    check_paths(words)
    monkeypatch.chdir(tmp_path)
    Path("C:photos").touch()
    check_paths(["C:photos"])
    with pytest.raises(InputError):
        check_paths(["C:music"])
