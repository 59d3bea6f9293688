"""Whether the machine has a GPU; TensorFlow is not loaded where a look at the devices tells."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from regraft_core.runtime.errors import InputError

# NVIDIA's driver, the one of Windows' subsystem, and AMD's.
DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")


def check_gpu(required: bool, device_files: Sequence[str] = DEVICE_FILES) -> None:
    """Fail at once where a GPU is required and none is seen, before TensorFlow is loaded.

    Raises:
        InputError: no device of a GPU's driver, or TensorFlow sees none through it.
    """
    if not required:
        return
    if platform.system() == "Linux" and not any(Path(path).exists() for path in device_files):
        raise InputError(
            f"require-gpu: expected a GPU, this machine has none (no {', '.join(device_files)})"
        )
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        raise InputError(
            "require-gpu: expected a GPU, TensorFlow sees none (its CUDA build and the driver "
            "must fit; CUDA_VISIBLE_DEVICES may hide it)"
        )
