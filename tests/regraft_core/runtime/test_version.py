"""The digest of the code, which decides whether results are reused: what changes it, what not."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from regraft_core.runtime import version
from regraft_core.runtime.version import CODE_SUFFIXES, ROOT, code_digest

PACKAGES = ("regraft_core", "components", "serving")


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with a file of each kind in each package."""
    for package in PACKAGES:
        (tmp_path / package / "inner").mkdir(parents=True)
        for suffix in CODE_SUFFIXES:
            (tmp_path / package / "inner" / f"file{suffix}").write_text(f"{package}{suffix}")
    return tmp_path


def change_byte(package: Path, suffix: str) -> None:
    path = package / "inner" / f"file{suffix}"
    path.write_bytes(b"_" + path.read_bytes()[1:])


def rename_file(package: Path, suffix: str) -> None:
    (package / "inner" / f"file{suffix}").rename(package / "inner" / f"file2{suffix}")


def move_file(package: Path, suffix: str) -> None:
    (package / "inner" / f"file{suffix}").rename(package / f"file{suffix}")


def add_file(package: Path, suffix: str) -> None:
    (package / f"added{suffix}").write_bytes(b"")


def remove_file(package: Path, suffix: str) -> None:
    (package / "inner" / f"file{suffix}").unlink()


def move_end_to_the_next_file(package: Path, suffix: str) -> None:
    """Concatenated contents stay the same, the boundary between two files moves."""
    path = package / "inner" / f"file{suffix}"
    other = path.with_name(f"file0{suffix}")
    other.write_bytes(path.read_bytes()[:1])
    path.write_bytes(path.read_bytes()[1:])


CHANGES = (change_byte, rename_file, move_file, add_file, remove_file, move_end_to_the_next_file)


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("suffix", CODE_SUFFIXES)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_code_changes_the_digest(
    code: Path, package: str, suffix: str, change: Callable[[Path, str], None]
) -> None:
    before = code_digest(code)
    change(code / package, suffix)
    assert code_digest(code) != before


def test_swapped_files_change_the_digest(code: Path) -> None:
    before = code_digest(code)
    first, second = (code / "components" / "inner" / f"file{s}" for s in (".py", ".j2"))
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    assert code_digest(code) != before


def test_the_version_changes_the_digest(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_digest(code)
    monkeypatch.setattr(version, "VERSION", "0.0.1")
    assert code_digest(code) != before


@pytest.mark.parametrize(
    "name",
    [
        "regraft_core/__pycache__/file.cpython-311.pyc",
        "components/notes.txt",
        "components/Dockerfile",
        "tests/test_file.py",
        "pipelines/file.py",
        "regraft/file.py",
        "file.py",
    ],
)
def test_other_files_do_not_change_the_digest(code: Path, name: str) -> None:
    before = code_digest(code)
    (code / name).parent.mkdir(parents=True, exist_ok=True)
    (code / name).write_bytes(b"x")
    assert code_digest(code) == before


def test_the_digest_depends_on_the_content_alone(code: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    for package in PACKAGES:
        shutil.copytree(code / package, copied / package)
    assert code_digest(copied) == code_digest(code)
    assert len(code_digest(code)) == 64


def test_an_installed_client_is_covered(code: Path) -> None:
    before = code_digest(code)
    (code / "regraft_client").mkdir()
    (code / "regraft_client" / "client.py").write_bytes(b"x")
    assert code_digest(code) != before


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages of this checkout."""
    copied = tmp_path_factory.mktemp("checkout")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copied / package)
    return copied


def test_without_a_folder_the_running_code_is_meant(checkout: Path) -> None:
    assert code_digest() == code_digest(checkout)


@pytest.mark.parametrize(
    "name",
    [
        "regraft_core/images/preprocess.py",
        "components/evaluate/gate/gate.py",
        "components/evaluate/report/report.html.j2",
        "components/evaluate/report/report.css",
        "components/ingest/card/data_card.html.j2",
        "serving/server/ports/page.html",
        "serving/config/batching.config",
    ],
)
def test_files_of_this_checkout_are_covered(checkout: Path, name: str) -> None:
    before = code_digest(checkout)
    content = (checkout / name).read_bytes()
    (checkout / name).write_bytes(content + b" ")
    changed = code_digest(checkout)
    (checkout / name).write_bytes(content)
    assert changed != before


def test_all_package_data_is_covered() -> None:
    """But for what only a type checker or `make protos` reads."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    data = setuptools["package-data"]
    suffixes = {Path(pattern).suffix for pattern in data.pop("*")}
    for package, patterns in data.items():
        for pattern in patterns:
            files = [path for path in (ROOT / package).glob(pattern) if path.is_file()]
            assert files, f"{package}/{pattern}"
            suffixes |= {path.suffix for path in files}
    assert suffixes - {".typed", ".pyi", ".proto", ""} <= set(CODE_SUFFIXES)
