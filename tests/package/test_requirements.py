"""Requirements: what the code imports is declared, and what is declared is locked."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from regraft_core.runtime.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("components", "pipelines", "regraft", "regraft_core", "serving")
OWN = {"regraft", "regraft-client"}
# What each lock file is made from: pyproject.toml's requirements and these extras.
LOCKS = {"run": ["cloud", "ray"], "gpu": ["cloud", "gpu", "ray"], "dev": ["cloud", "dev"]}
PINNED = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^ ;]+)(?: ; (.*?))? \\$", re.MULTILINE)


def read_project(folder: Path = ROOT) -> dict[str, Any]:
    text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


def declared(*extras: str) -> Iterator[Requirement]:
    """Yield what Regraft requires with extras; extras that name others are resolved."""
    project = read_project()
    lists = [project["dependencies"], *(project["optional-dependencies"][name] for name in extras)]
    for requirement in (Requirement(line) for lines in lists for line in lines):
        if requirement.name == "regraft":
            yield from declared(*sorted(requirement.extras))
        elif canonicalize_name(requirement.name) not in OWN:
            yield requirement


def read_lock(name: str) -> dict[str, tuple[str, str]]:
    """Return version and marker by name."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    found = PINNED.findall(text)
    assert len(found) == len({name for name, _, _ in found}), "a name is locked twice"
    return {name: (version, marker) for name, version, marker in found}


@pytest.mark.parametrize(("name", "extras"), LOCKS.items())
def test_what_is_declared_is_locked(name: str, extras: list[str]) -> None:
    lock = read_lock(name)
    client = map(Requirement, read_project(ROOT / "serving" / "client")["dependencies"])
    for requirement in (*declared(*extras), *client):
        version, marker = lock[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), str(requirement)
        assert not marker or Marker(marker).evaluate(), f"{requirement} is not locked for this"


def test_the_lock_files_agree() -> None:
    dev, gpu = read_lock("dev"), read_lock("gpu")
    for name, (version, _) in read_lock("run").items():
        assert dev[name][0] == version
        assert gpu[name][0] == version


@pytest.mark.parametrize("name", LOCKS)
def test_each_line_of_a_lock_has_hashes_and_no_index(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(read_lock(name)) > 80
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        assert re.match(r"[a-z0-9]|    --hash=sha256:[0-9a-f]{64}", line), line
        assert not line.endswith("\\") or following.startswith("    --hash"), line
    assert "://" not in text
    assert "--index-url" not in text


def test_the_installed_versions_are_the_locked_ones() -> None:
    """So that what these tests pass with is what others install."""
    for requirement in declared("cloud", "ray"):
        version, _ = read_lock("run")[canonicalize_name(requirement.name)]
        assert Version(metadata.version(requirement.name)) == Version(version)


def test_everything_that_is_imported_is_declared() -> None:
    extras = set(read_project()["optional-dependencies"]) - {"dev"}
    names = {canonicalize_name(one.name) for one in declared(*sorted(extras))} | OWN
    distributions = metadata.packages_distributions()
    own = {*PACKAGES, "benchmarks", "regraft_client"}
    undeclared = {
        (module, path.relative_to(ROOT).as_posix())
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "client" not in path.relative_to(ROOT / package).parts[:1]
        for module in imported_modules(path)
        if module not in sys.stdlib_module_names | own
        and not names & {canonicalize_name(one) for one in distributions.get(module, ())}
    }
    assert undeclared == set()


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the top-level names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


def test_the_client_has_the_same_version() -> None:
    assert read_project(ROOT / "serving" / "client")["version"] == VERSION
    assert f"regraft-client=={VERSION}" in read_project()["dependencies"]


def test_the_citation_and_the_change_log_name_the_version() -> None:
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{VERSION}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
