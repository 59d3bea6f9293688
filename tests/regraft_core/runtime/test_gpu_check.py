"""A required GPU that is missing is an error, before TensorFlow is loaded if possible."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from regraft_core.runtime.errors import InputError
from regraft_core.runtime.gpu_check import check_gpu, explain_missing_gpu
from regraft_core.runtime.nvidia_smi import read_driver
from tests.regraft_core.runtime.nvidia import install, report

needs_linux = pytest.mark.skipif(platform.system() != "Linux", reason="checks device files")


@needs_linux
def test_a_missing_device_is_reported_without_tensorflow() -> None:
    code = (
        "import sys\n"
        "from regraft_core.runtime.errors import InputError\n"
        "from regraft_core.runtime.gpu_check import check_gpu\n"
        "try:\n    check_gpu(True, ['/dev/no-such-device'])\n"
        "except InputError as error:\n    print(error, 'tensorflow' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "expected a GPU, found none (no /dev/no-such-device)" in done.stdout
    assert done.stdout.strip().endswith("False")


@needs_linux
def test_a_device_without_a_gpu_in_tensorflow_is_reported(tmp_path: Path) -> None:
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    device = tmp_path / "nvidia0"
    device.touch()
    with pytest.raises(InputError, match="TensorFlow found none"):
        check_gpu(True, [str(device)])


def test_without_the_option_nothing_is_checked() -> None:
    check_gpu(False, [])


@pytest.mark.parametrize(
    ("text", "build", "visible", "reason"),
    [
        (report(), "12.5", "", "CUDA_VISIBLE_DEVICES= hides all GPUs; unset it"),
        (report(), "12.5", "-1", "CUDA_VISIBLE_DEVICES=-1 hides all GPUs; unset it"),
        (report(cuda="11.8"), "12.5.1", None, "driver 580.95.05 supports CUDA 11.8, TensorFlow is "
         "built for 12.5.1; update the driver"),
        (report(cuda="12.2"), "12.5.1", "0", "the libraries of CUDA 12.5.1 are not found; install"),
        (report(cards=0), "12.5.1", None, "driver 580.95.05 has no card; check nvidia-smi"),
        ("", "12.5.1", None, "nvidia-smi does not respond; install a driver for CUDA 12.5.1"),
        ("", "", None, "its wheel is built without CUDA; install the extra [gpu]"),
    ],
)  # fmt: skip
def test_a_missing_gpu_is_explained(
    text: str, build: str, visible: str | None, reason: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    install(monkeypatch, tmp_path, text)
    info = {"is_cuda_build": bool(build), "cuda_version": build}
    assert explain_missing_gpu(read_driver(), info, visible).startswith(reason)
