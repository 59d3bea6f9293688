"""The Makefile: what it installs and builds, and its errors."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from regraft_core.runtime.container_image import GPU_IMAGE, IMAGE

ROOT = Path(__file__).resolve().parents[2]


def make(
    *arguments: str, folder: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run make without uv, and without the settings of the make that started the tests."""
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    return subprocess.run(
        ["make", "--no-print-directory", "UV=", *arguments], cwd=folder,
        env=environment | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


def commands(*arguments: str) -> list[list[str]]:
    """Return the commands that make would run."""
    done = make("--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.replace("\\\n", " ").splitlines()]


def test_without_a_suitable_python_one_line_says_so(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    done = make(f"VENV={venv}", "PYTHON=python-that-is-not-there", "install")
    assert done.returncode != 0
    said, _ = done.stderr.splitlines()
    assert said.startswith("expected Python 3.11, 3.12 or 3.13")
    assert not venv.exists()


def test_own_distributions_are_installed_by_path_in_one_command(tmp_path: Path) -> None:
    for target in ("install", "dev"):
        installs = [line for line in commands(f"VENV={tmp_path}", target) if "install" in line]
        locked, own = (line[line.index("install") + 1 :] for line in installs)
        assert locked[1:4] == ["--no-deps", "--require-hashes", "--requirement"]
        assert own[1:] == ["--no-deps", "--editable", "serving/client", "--editable", "."]


def test_the_container_image_is_tagged_as_the_steps_expect() -> None:
    for tag, requirements, arguments in ((IMAGE, "run", []), (GPU_IMAGE, "gpu", ["GPU=1"])):
        (build,) = commands("image", *arguments)
        assert build[build.index("--tag") + 1] == tag
        assert f"REQUIREMENTS={requirements}" in build


def test_the_bill_of_materials_is_of_the_locked_packages() -> None:
    for requirements, arguments in (("run", []), ("gpu", ["GPU=1"])):
        _, install, write = commands("sbom", *arguments)
        assert any("==" in package for package in install)
        assert f"requirements/{requirements}.txt" in write
        assert write[-2:] == ["--output-file", "build/sbom.json"]


DOCKER = """#!/bin/sh
echo "$@" >> "$0.log"
[ "$1" = pull ] && exit $PULLED
echo "$FOUND"
"""


@pytest.mark.parametrize(
    ("pulled", "found", "pinned"),
    [("0", "python@sha256:" + "a1" * 32, True), ("0", "", False), ("1", "", False)],
)
def test_the_base_of_the_container_image_is_pinned_by_its_digest(
    tmp_path: Path, pulled: str, found: str, pinned: bool
) -> None:
    """With a stand-in for docker; after a failure the Dockerfile is as before."""
    docker, dockerfile = tmp_path / "bin" / "docker", tmp_path / "components" / "Dockerfile"
    for path, text in ((docker, DOCKER), (dockerfile, (ROOT / "components/Dockerfile").read_text()),
                       (tmp_path / "Makefile", (ROOT / "Makefile").read_text())):  # fmt: skip
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    docker.chmod(0o755)
    before = dockerfile.read_text()
    path = f"{docker.parent}{os.pathsep}{os.environ['PATH']}"
    for _ in range(2):  # the second time, it replaces a digest
        done = make("pin-base", folder=tmp_path, PATH=path, PULLED=pulled, FOUND=found)
        assert (done.returncode == 0) == pinned
    line = "ARG BASE=python:3.11-slim-bookworm"
    assert before.count(f"\n{line}\n") == 1
    digest = f"@{found.partition('@')[2]}" if pinned else ""
    assert dockerfile.read_text() == before.replace(line, f"{line}{digest}")
    assert f"pull --quiet {line.partition('=')[2]}\n" in Path(f"{docker}.log").read_text()


def test_pre_commit_runs_what_lint_runs() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (repository,) = yaml.safe_load(text)["repos"]
    assert repository["repo"] == "local"
    hooks = [hook["entry"].removesuffix(" --force-exclude") for hook in repository["hooks"]]
    linted = [" ".join(line).removesuffix(" .") for line in commands("lint") if "bin/" in line[0]]
    assert linted[-4:] == hooks


def test_ci_runs_targets_of_the_makefile() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    targets = [line.split()[1] for line in lines if line.strip().startswith("make ")]
    assert targets == ["lint", "test", "test-long", "test-containers"]
    for target in targets:
        assert commands(target)
