"""`regraft doctor`: whether this machine can run Regraft, and what to do about each lack."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from regraft_core.runtime.errors import InputError
from regraft_core.runtime.gpu_check import DEVICE_FILES

CHECKOUT = Path(__file__).resolve().parents[1]
PYTHONS = ((3, 11), (3, 14))
LEAST_GB, ENOUGH_GB = 2.0, 20.0
START_TIMEOUT_S, ASK_TIMEOUT_S = 180.0, 20.0
INSTALL = "in a checkout: make install"
# TensorFlow may end its process where the processor lacks an instruction, so it starts in another.
_ASK_TENSORFLOW = """
import json, keras, tensorflow as tf
gpus = [device.name for device in tf.config.list_physical_devices("GPU")]
cuda = bool(tf.test.is_built_with_cuda())
print(json.dumps({"tensorflow": tf.__version__, "keras": keras.__version__, "gpus": gpus,
                  "cuda": cuda}))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    `state` is `good`, `lacking` where something works less well or not at all without it, or
    `broken` where Regraft cannot work; the latter two have a remedy.
    """

    name: str
    state: Literal["good", "lacking", "broken"]
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings; the machine is usable when none is `broken`."""

    findings: list[Finding]

    @property
    def usable(self) -> bool:
        """Whether Regraft can work here."""
        return all(finding.state != "broken" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {"usable": self.usable, "findings": [asdict(finding) for finding in self.findings]}


def diagnose(work: Path, checkout: Path = CHECKOUT) -> Diagnosis:
    """Look at all that Regraft needs or can use.

    Args:
        work: the folder that runs would be written to.
        checkout: where `pyproject.toml` and the lock file `requirements/dev.txt` are.
    """
    installed = installed_versions()
    return Diagnosis(
        [
            check_python(sys.version_info[:3]),
            check_requirements(requirements_of(checkout), installed),
            check_pins(pins_of(checkout), installed),
            *check_tensorflow(ask_tensorflow(), DEVICE_FILES),
            check_installed_weights(),
            check_keras_cache(Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()),
            check_program(
                "docker", ["docker", "version", "--format", "{{.Server.Version}}"],
                "install Docker Engine and start it: for serve --engine docker and for steps in "
                "containers; all else works without",
            ),
            check_program(
                "tensorflow_model_server", ["tensorflow_model_server", "--version"],
                "nothing is needed: the embedded server speaks the same protocol; to serve by "
                "TensorFlow Serving install its Debian package or use serve --engine docker",
            ),
            check_disk(work, shutil.disk_usage(_existing(work)).free),
        ]
    )  # fmt: skip


def check_python(version: tuple[int, ...]) -> Finding:
    """Hold Python's version against those that TensorFlow is built for."""
    least, beyond = PYTHONS
    shown = ".".join(map(str, version))
    if least <= version[:2] < beyond:
        return Finding("Python", "good", shown)
    return Finding(
        "Python", "broken", shown,
        f"make the environment with Python {least[0]}.{least[1]} to {beyond[0]}.{beyond[1] - 1}",
    )  # fmt: skip


def installed_versions() -> dict[str, str]:
    """Return the installed packages' versions by normal name."""
    return {
        _normal(package.metadata["Name"]): package.version
        for package in reversed(list(metadata.distributions()))  # the first on the path wins
        if package.metadata["Name"]
    }


def requirements_of(checkout: Path) -> list[Requirement]:
    """Return what Regraft requires, from its `pyproject.toml`; nothing outside a checkout."""
    path = checkout / "pyproject.toml"
    if not path.is_file():
        return []
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    return [Requirement(line) for line in project["dependencies"]]


def pins_of(checkout: Path) -> dict[str, str]:
    """Return the locked versions by normal name; nothing outside a checkout."""
    path = checkout / "requirements" / "dev.txt"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return dict(re.findall(r"^([\w.-]+)==([^ ;]+)", text, re.MULTILINE))


def check_requirements(wanted: list[Requirement], installed: Mapping[str, str]) -> Finding:
    """Look for packages that are missing or too old."""
    wrong = [
        f"{one} (found {installed.get(_normal(one.name), 'none')})"
        for one in wanted
        if not one.specifier.contains(installed.get(_normal(one.name), "0"), prereleases=True)
        or _normal(one.name) not in installed
    ]
    if wrong:
        return Finding("packages", "broken", _few(wrong), INSTALL)
    return Finding("packages", "good", f"all {len(wanted)} that are required")


def check_pins(pins: Mapping[str, str], installed: Mapping[str, str]) -> Finding:
    """Look for packages of other versions than those that are known to work together."""
    if not pins:
        return Finding("versions", "good", "no lock file to compare with")
    present = [name for name in pins if name in installed]
    other = [
        f"{name} {installed[name]} in place of {pins[name]}"
        for name in present
        if installed[name] != pins[name]
    ]
    if other:
        return Finding("versions", "lacking", _few(other), INSTALL)
    return Finding("versions", "good", f"{len(present)} as in the lock file")


def ask_tensorflow(code: str = _ASK_TENSORFLOW) -> dict[str, Any]:
    """Return what TensorFlow says of itself, or `error`, from a process of its own."""
    command = [sys.executable, "-c", code]
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=START_TIMEOUT_S, env=quiet
        )
    except subprocess.TimeoutExpired:
        return {"error": f"did not start within {START_TIMEOUT_S:g} s"}
    if ended.returncode < 0:
        return {"error": f"its process was ended by signal {-ended.returncode}"}
    lines = (ended.stdout if ended.returncode == 0 else ended.stderr).strip().splitlines()
    if ended.returncode or not lines:
        return {"error": lines[-1] if lines else f"exit code {ended.returncode}"}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def check_tensorflow(answer: Mapping[str, Any], device_files: Sequence[str]) -> Iterator[Finding]:
    """Judge what TensorFlow said of itself and of GPUs."""
    if "error" in answer:
        yield Finding(
            "TensorFlow", "broken", f"cannot be loaded: {answer['error']}",
            f"{INSTALL}; its packages need a 64-bit processor with AVX and glibc",
        )  # fmt: skip
        return
    versions = f"{answer['tensorflow']}, Keras {answer['keras']}"
    yield Finding("TensorFlow", "good", versions)
    drivers = [path for path in device_files if Path(path).exists()]
    if answer["gpus"]:
        yield Finding("GPU", "good", f"{len(answer['gpus'])} seen by TensorFlow")
    elif drivers:
        yield Finding(
            "GPU", "lacking", f"a driver is there ({drivers[0]}), TensorFlow sees no GPU",
            "install the extra [gpu] (in a checkout: make install EXTRAS=gpu), and unset "
            "CUDA_VISIBLE_DEVICES",
        )  # fmt: skip
    else:
        yield Finding(
            "GPU", "lacking", "none; all steps run on the processor",
            "nothing is needed; for a GPU install its driver and the extra [gpu]",
        )  # fmt: skip


def check_installed_weights() -> Finding:
    """Look at the ImageNet weights that come as a package."""
    from regraft_core.backbones.efficientnet_lite0 import weights_path

    name = "installed weights"
    try:
        weights_path()
    except InputError as error:
        return Finding(name, "broken", str(error).partition(";")[0], INSTALL)
    return Finding(name, "good", "efficientnet_lite0, checked by digest")


def check_keras_cache(home: Path) -> Finding:
    """Look at the ImageNet weights that Keras has downloaded."""
    name, models = "Keras weights", home / "models"
    nearest = _existing(models)
    if not os.access(nearest, os.W_OK):
        return Finding(
            name, "lacking", f"cannot write to {nearest}",
            "set KERAS_HOME to a folder of yours; Keras keeps downloaded weights there",
        )  # fmt: skip
    files = [path for path in models.glob("*") if path.is_file()] if models.is_dir() else []
    if not files:
        return Finding(
            name, "lacking", f"none downloaded to {models}",
            "nothing is needed with network: Keras downloads them at the first use; without, give "
            "--weights FILE, or use efficientnet_lite0",
        )  # fmt: skip
    size = sum(path.stat().st_size for path in files) / 1e9
    return Finding(name, "good", f"{len(files)} files, {size:.1f} GB, in {models}")


def check_program(name: str, command: list[str], remedy: str) -> Finding:
    """Ask a program for its version."""
    if not shutil.which(command[0]):
        return Finding(name, "lacking", "not installed", remedy)
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=ASK_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, "lacking", f"does not answer ({type(error).__name__})", remedy)
    lines = (ended.stdout or ended.stderr).strip().splitlines()
    if ended.returncode:
        said = lines[-1] if lines else f"exit code {ended.returncode}"
        return Finding(name, "lacking", f"installed, but: {said}", remedy)
    return Finding(name, "good", lines[0] if lines else "installed")


def check_disk(work: Path, free_bytes: int) -> Finding:
    """Hold the free space against what runs need: cached activations take up to `cache-gb`."""
    free_gb = free_bytes / 1e9
    found = f"{free_gb:.1f} GB free for {work}"
    if free_gb >= ENOUGH_GB:
        return Finding("disk", "good", found)
    return Finding(
        "disk", "broken" if free_gb < LEAST_GB else "lacking", found,
        f"free some space, or give run a smaller --cache-gb (now {ENOUGH_GB:g})",
    )  # fmt: skip


def _existing(path: Path) -> Path:
    """Return the nearest folder that is there."""
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _few(lines: list[str]) -> str:
    """Return the first few of many."""
    more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
    return f"{', '.join(lines[:5])}{more}"
