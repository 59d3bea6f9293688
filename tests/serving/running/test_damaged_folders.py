"""What goes wrong in the folders of a running server is logged, and the server continues."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from regraft_core.runtime.errors import InputError
from serving.running.model_discovery import ConfigUpdater, find_models
from serving.running.runner import Addresses
from serving.running.serve import Served
from serving.server.models.lifecycle import find_versions
from tests.serving.raw import until

DAMAGED_LABELS: dict[str, Callable[[Path], object]] = {
    "binary": lambda file: file.write_bytes(b"\xff\xfe\x00"),
    "deep": lambda file: file.write_text("[" * 100_000),
    "infinite": lambda file: file.write_text('{"stable": 1e400}'),
    "not a number": lambda file: file.write_text('{"stable": NaN}'),
    "no object": lambda file: file.write_text("[1]"),
    "null": lambda file: file.write_text('{"stable": null}'),
    "many digits": lambda file: file.write_text('{"stable": ' + "9" * 5000 + "}"),
}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with the labeled models `a` and `b`."""
    for name in ("a", "b"):
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        (tmp_path / "models" / name / "labels.json").write_text('{"stable": 1}')
    return tmp_path / "models"


@pytest.fixture
def served(models: Path, tmp_path: Path) -> Served:
    """A server of both models, which does not respond."""
    config = tmp_path / "config" / "models.config"
    config.parent.mkdir()
    addresses = Addresses("127.0.0.1:1", "127.0.0.1:1", "embedded", os.getpid())
    return Served(addresses, ConfigUpdater(find_models(models), config))


def config_text(served: Served) -> str:
    return served._updater._config.read_text()


@pytest.mark.parametrize("kind", DAMAGED_LABELS)
def test_damaged_labels_are_logged_once_and_change_nothing(
    models: Path, served: Served, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    before = config_text(served)
    DAMAGED_LABELS[kind](models / "a" / "labels.json")
    for _ in range(3):
        served.poll()
    assert config_text(served) == before
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"skipped a: {models / 'a' / 'labels.json'}: expected an object")
    (models / "a" / "labels.json").write_text('{"stable": 1}')
    served.poll()
    DAMAGED_LABELS[kind](models / "a" / "labels.json")
    served.poll()
    assert len(capsys.readouterr().err.splitlines()) == 1  # it is new again
    with pytest.raises(InputError, match="expected an object of label to version"):
        find_models(models)


def test_moved_versions_are_not_those_of_another_model(models: Path, served: Served) -> None:
    before = config_text(served)
    (models / "a" / "backup").mkdir()
    (models / "a" / "1").rename(models / "a" / "backup" / "1")
    served.poll()
    assert config_text(served) == before
    (models / "a" / "backup" / "1").rename(models / "a" / "1")
    served.poll()
    assert config_text(served) == before


def replaced_by_a_loop(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder)


@pytest.mark.parametrize("change", [shutil.rmtree, replaced_by_a_loop])
def test_a_folder_that_is_gone_is_logged_and_stays_configured(
    models: Path,
    served: Served,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
) -> None:
    before = config_text(served)
    change(models / "a")
    served.poll()
    assert config_text(served) == before
    assert capsys.readouterr().err.startswith("skipped a: ")


def test_a_cleaned_temporary_folder_is_written_again(served: Served) -> None:
    before = config_text(served)
    shutil.rmtree(served._updater._config.parent)
    served.poll()
    assert config_text(served) == before


def test_unusual_names_are_no_versions(models: Path, tmp_path: Path) -> None:
    for name in ("²", "٣", "9" * 40, "9" * 200, "1.5", "-1"):
        (models / "a" / name).mkdir()
    (models / "loop").symlink_to(models / "loop")
    (models / "a" / "2").symlink_to(models / "a" / "2")
    (models / "file").write_text("")
    assert [(model.name, model.latest) for model in find_models(models)] == [("a", 1), ("b", 1)]
    assert list(find_versions(models / "a")) == [1]
    assert find_versions(models / "loop") == find_versions(Path("/a\0b")) == {}
    with pytest.raises(InputError, match="expected a folder of models"):
        find_models(models / "loop")


def test_a_folder_that_cannot_be_read_is_skipped() -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        for model in ("a", "b"):
            (base / model / "1").mkdir(parents=True)
        (base / "a").chmod(0)
        lines: list[str] = []
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            assert [model.name for model in find_models(base, lines.append)] == ["b"]
        finally:
            os.seteuid(user)
        (base / "a").chmod(0o755)
    assert lines == [f"skipped {base / 'a'}: Permission denied"]


STARTER = """
import sys
from serving.running.runner import started_server
with started_server(sys.argv[1:]) as at:
    print(at.pid, flush=True)
    sys.stdin.read()
"""


def test_a_server_ends_with_the_program_that_started_it(model_base: Path) -> None:
    command = [sys.executable, "-c", STARTER, f"--model_base_path={model_base}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        server = int(starter.stdout.readline())
        os.kill(server, 0)
        starter.send_signal(signal.SIGKILL)

    def ended() -> bool:
        try:
            return "\nState:\tZ" in Path(f"/proc/{server}/status").read_text()
        except FileNotFoundError:
            return True

    until(ended)


def test_a_program_that_cannot_be_run_is_reported(tmp_path: Path) -> None:
    launcher = Path("serving/running/exec_with_parent.py").resolve()
    command = [sys.executable, str(launcher), str(os.getpid()), str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        f"cannot run {tmp_path / 'none'}: No such file or directory\n",
    )
    orphan = subprocess.run([*command[:2], "1", "true"], check=False)
    assert orphan.returncode == 1
