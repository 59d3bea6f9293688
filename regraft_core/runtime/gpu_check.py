"""Checks that the machine has a GPU, before TensorFlow is loaded if possible."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regraft_core.runtime.errors import InputError
from regraft_core.runtime.nvidia_smi import Driver, read_driver

# The drivers of NVIDIA, of Windows Subsystem for Linux, and of AMD.
DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")


def check_gpu(required: bool, device_files: Sequence[str] = DEVICE_FILES) -> None:
    """Check that a required GPU is available.

    Raises:
        InputError: no GPU driver has a device, or TensorFlow finds no GPU.
    """
    if not required:
        return
    if platform.system() == "Linux" and not any(Path(path).exists() for path in device_files):
        raise InputError(f"require-gpu: expected a GPU, found none (no {', '.join(device_files)})")
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        reason = explain_missing_gpu(
            read_driver(), tf.sysconfig.get_build_info(), os.environ.get("CUDA_VISIBLE_DEVICES")
        )
        raise InputError(f"require-gpu: expected a GPU, TensorFlow found none: {reason}")


def explain_missing_gpu(
    driver: Driver | None, build: Mapping[str, Any], visible: str | None
) -> str:
    """Return why TensorFlow finds no GPU of a machine with a driver, and what to do.

    Args:
        driver: what `nvidia-smi` reports.
        build: TensorFlow's build information.
        visible: the value of CUDA_VISIBLE_DEVICES; None if it is not set.
    """
    if visible is not None and (driver is None or not driver.visible_cards(visible)):
        return f"CUDA_VISIBLE_DEVICES={visible} hides all GPUs; unset it"
    if not build.get("is_cuda_build"):
        return "its wheel is built without CUDA; install the extra [gpu]"
    built_for = str(build.get("cuda_version", ""))
    if driver is None:
        return f"nvidia-smi does not respond; install a driver for CUDA {built_for}"
    # Drivers run programs of all minor versions of the CUDA versions that they support.
    major = built_for.split(".")[0]
    if major.isdigit() and driver.cuda != (0, 0) and driver.cuda[0] < int(major):
        return (
            f"driver {driver.version} supports CUDA {driver.cuda[0]}.{driver.cuda[1]}, TensorFlow "
            f"is built for {built_for}; update the driver"
        )
    if not driver.cards:
        return f"driver {driver.version} has no card; check nvidia-smi"
    return (
        f"the libraries of CUDA {built_for} are not found; install the extra [gpu] (in a "
        "checkout: make install EXTRAS=gpu)"
    )
