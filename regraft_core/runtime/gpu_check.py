"""Checks that the machine has a GPU, before TensorFlow is loaded if possible."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from regraft_core.runtime.errors import InputError

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
        raise InputError(
            "require-gpu: expected a GPU, TensorFlow found none (check that its CUDA version "
            "matches the driver, and CUDA_VISIBLE_DEVICES)"
        )
