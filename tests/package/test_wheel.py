"""The built distributions: their contents, and a run from the wheels far from the checkout."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from regraft_core.runtime.version import VERSION

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
TOP_PACKAGES = {"components", "pipelines", "regraft", "regraft_core", "serving"}
DATA_FOLDERS = ("serving/config", "serving/k8s", "serving/kserve")
DATA_SUFFIXES = (".css", ".html", ".j2", ".proto", ".pyi", ".yaml")
# The smallest run: an untrained backbone of few layers, one strategy, thresholds that it passes.
SMALLEST = shlex.split(
    "--backbone tiny --image-px 32 --cut auto --strategies head "
    "--min-accuracy 0.1 --min-class-recall 0 --baseline-rule off --recall-floor 0"
)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both distributions, each wheel built from its sdist."""
    # From a copy, because setuptools would go by what an earlier build noted in the checkout.
    out, copy = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist", "runs")
    shutil.copytree(ROOT, copy, ignore=ignored, dirs_exist_ok=True)
    for source in (copy, copy / "serving" / "client"):
        run_uv("build", "--quiet", "--out-dir", out, source)
    return out


@dataclass(frozen=True)
class Installed:
    """An environment that has the wheels, and an empty folder to work in."""

    binaries: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of this process's environment: no path to the checkout, another home."""
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.folder / "home")}

    def run(self, program: str, *arguments: str | Path, code: int = 0) -> str:
        """Run a program of the environment; return what it prints."""
        done = subprocess.run(
            [self.binaries / program, *arguments], cwd=self.folder, env=self.environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    @contextmanager
    def serving(self, models: Path) -> Iterator[str]:
        """Serve the models for the block; yield the gRPC address."""
        with subprocess.Popen(
            [self.binaries / "regraft", "serve", models, "--port", "0", "--rest-api-port", "0"],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True,
        ) as server:  # fmt: skip
            assert server.stdout is not None
            printed = ""
            try:
                while not (found := re.search(r"grpc://([\d.]+:\d+)", printed)):
                    line = server.stdout.readline()
                    assert line, printed
                    printed += line
                yield found[1]
            finally:
                server.send_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Both wheels and what they require, in locked versions, in an empty environment."""
    base = tmp_path_factory.mktemp("away")
    run_uv("venv", "--quiet", "--python", sys.executable, base / "venv")
    run_uv(
        "pip", "install", "--quiet", "--python", base / "venv" / "bin" / "python",
        "--constraint", ROOT / "requirements" / "run.txt", *sorted(dist.glob("*.whl")),
    )  # fmt: skip
    (base / "work").mkdir()
    return Installed(base / "venv" / "bin", base / "work")


@pytest.fixture(scope="module")
def finished(installed: Installed) -> Path:
    """The folder of an accepted run of the built-in recipe `digits`."""
    installed.run("regraft", "run", "digits", "--out", "runs/digits", *SMALLEST)
    return installed.folder / "runs" / "digits"


def run_uv(*arguments: str | Path) -> None:
    """Run uv with the index that pip is set to, if any."""
    index = os.environ.get("PIP_INDEX_URL")
    environment = os.environ | ({"UV_DEFAULT_INDEX": index} if index else {})
    done = subprocess.run(
        [sys.executable, "-m", "uv", *arguments], cwd=ROOT, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def data_files() -> set[str]:
    """Return the data files of the packages that the checkout holds."""
    files = (path for top in TOP_PACKAGES for path in (ROOT / top).rglob("*") if path.is_file())
    names = {path.relative_to(ROOT).as_posix() for path in files}
    return {
        name
        for name in names
        if not name.startswith("serving/client/")
        and (name.endswith((*DATA_SUFFIXES, "py.typed")) or name.startswith(DATA_FOLDERS))
    }


def test_the_wheel_has_all_data_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(dist / f"regraft-{VERSION}-py3-none-any.whl") as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
    assert {name.split("/")[0] for name in names} == {
        *TOP_PACKAGES, f"regraft-{VERSION}.dist-info",
    }  # fmt: skip
    assert not [name for name in names if name.startswith("serving/client")]
    data = data_files()
    assert len(data) > 25
    assert {f"{package}/py.typed" for package in TOP_PACKAGES} <= data
    assert data <= names


def test_the_clients_wheel_has_the_client_only(dist: Path) -> None:
    with zipfile.ZipFile(dist / f"regraft_client-{VERSION}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
    assert {name.split("/")[0] for name in names} == {
        "regraft_client", f"regraft_client-{VERSION}.dist-info",
    }  # fmt: skip
    assert "regraft_client/py.typed" in names


def test_the_sdist_has_no_tests_and_no_benchmarks(dist: Path) -> None:
    with tarfile.open(dist / f"regraft-{VERSION}.tar.gz") as archive:
        folders = {name.split("/")[1] for name in archive.getnames() if name.count("/") > 1}
    assert folders == {*TOP_PACKAGES, "regraft.egg-info"}


def test_nothing_of_the_checkout_can_be_imported(installed: Installed) -> None:
    program = (
        "import importlib.util as util, json, sys; print(json.dumps({name: found and found.origin "
        "for name in sys.argv[1:] for found in [util.find_spec(name)]}))"
    )
    absent = ("tests", "benchmarks", "serving.client")
    printed = installed.run("python", "-c", program, *TOP_PACKAGES, "regraft_client", *absent)
    origins = json.loads(printed)
    assert {name for name, origin in origins.items() if origin is None} == set(absent)
    inside = str(installed.binaries.parent)
    assert all(origin.startswith(inside) for origin in origins.values() if origin)


@pytest.mark.parametrize("command", ["regraft --version", "python -m regraft --version"])
def test_the_command_prints_its_version(installed: Installed, command: str) -> None:
    assert installed.run(*command.split()).strip() == VERSION


def test_a_built_in_recipe_runs(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["verdict"] == "accepted"
    assert max(summary["parity"].values()) <= 1e-4
    assert (finished / "models" / "digits" / "1" / "saved_model.pb").is_file()


def test_the_published_version_is_served(
    installed: Installed, finished: Path, shapes: Path
) -> None:
    with installed.serving(finished / "models") as address:
        printed = installed.run(
            "regraft", "predict", shapes / "circle" / "000.png", "--server", f"grpc://{address}",
            "--model", "digits", "--json",
        )  # fmt: skip
    assert re.search(r'"label": "\d"', printed), printed


def test_the_report_is_drawn_again(installed: Installed, finished: Path) -> None:
    printed = installed.run("regraft", "report", finished, "--no-open")
    page = Path(printed.split()[-1])
    assert "<svg" in page.read_text(encoding="utf-8")


def test_a_recipe_is_written_for_a_folder(installed: Installed, shapes: Path) -> None:
    installed.run("regraft", "init", shapes, "-o", "mine.yaml")
    assert str(shapes) in (installed.folder / "mine.yaml").read_text(encoding="utf-8")


def test_benchmarks_need_a_checkout(installed: Installed) -> None:
    assert "checkout" in installed.run("regraft", "bench", "demo", code=2)
