"""Processes of this package import it, and not a folder of the same name that a user has."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from regraft_core.runtime.errors import RegraftError
from serving.module_process import module_command, module_environment
from serving.publishing.servable_check import probe
from serving.running.runner import started_server

NO_MODELS = "serving: expected --model_base_path or --model_config_file, got neither\n"


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A folder of a user's with packages of the same names."""
    for name in ("serving", "regraft_core"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "__init__.py").write_text("raise SystemExit('imported')")
    return tmp_path / "mine"


@pytest.mark.parametrize("inherited", ["", "{own}", "{own}{sep}/nowhere", "/nowhere{sep}{own}"])
def test_a_users_folder_of_the_same_name_is_not_imported(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, inherited: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", inherited.format(own=own_folder, sep=os.pathsep))
    done = subprocess.run(
        module_command("serving.server"), cwd=own_folder, env=module_environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, NO_MODELS)


def test_without_pythonpath_the_environment_is_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert module_environment() == dict(os.environ)


def test_servers_and_probes_start_next_to_such_a_folder(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_folder)
    monkeypatch.setenv("PYTHONPATH", str(own_folder))
    server = started_server([])
    with pytest.raises(RegraftError, match="exit code 2: serving: expected --model_base"), server:
        pytest.fail("it must not start")
    with pytest.raises(RegraftError, match="expected warm-up requests"):
        probe(own_folder)
