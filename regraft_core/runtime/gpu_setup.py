"""Sets up the GPUs of a process before TensorFlow uses them: memory, precision, determinism."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from regraft_core.runtime.errors import InputError
from regraft_core.runtime.gpu_check import check_gpu
from regraft_core.runtime.nvidia_smi import Card, read_driver
from regraft_core.runtime.out_of_memory import (
    explain_out_of_memory,
    first_line,
    is_out_of_memory,
)

# NVIDIA's libraries read it: 0 turns TF32 off in a process, any other value on, whatever the
# program chooses.
TF32_VARIABLE = "NVIDIA_TF32_OVERRIDE"
GROWTH_VARIABLE = "TF_FORCE_GPU_ALLOW_GROWTH"
ArithmeticPrecision = Literal["float32", "tf32"]


@dataclass(frozen=True)
class GpuSetup:
    """How a process uses the GPUs.

    Attributes:
        required: a machine without a GPU is an error.
        memory_mb: the memory that the process may take on each GPU; 0 sets no limit.
        tf32: float32 products may be computed in TF32, whose results depend on the batch size.
        deterministic: operations have the same result each time.
    """

    required: bool = False
    memory_mb: int = 0
    tf32: bool = True
    deterministic: bool = False

    @classmethod
    def of(cls, options: Any, *, tf32: bool = True) -> Self:
        """Return the setup that the options of a step choose, as far as the step has them."""
        return cls(
            required=getattr(options, "require_gpu", False),
            memory_mb=getattr(options, "gpu_memory_mb", 0),
            tf32=tf32,
            deterministic=getattr(options, "deterministic", False),
        )


def set_up_gpus(setup: GpuSetup) -> None:
    """Set up the GPUs of this process; call it before TensorFlow uses them.

    A process takes memory as it needs it, so that several share a card. If the process has already
    used its GPUs, their memory stays as it is.

    Raises:
        InputError: no GPU although one is required, a limit that is larger than a card or comes
            too late, or a GPU that does not respond.
        RegraftError: other processes hold the memory of the card.
    """
    import tensorflow as tf

    check_gpu(setup.required)
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and setup.memory_mb:
        driver = read_driver()
        check_limit(setup.memory_mb, driver.visible_cards() if driver else ())
    for gpu in gpus:
        _set_memory(gpu, setup.memory_mb)
    tf.config.experimental.enable_tensor_float_32_execution(setup.tf32)
    if setup.deterministic:
        tf.random.set_seed(0)  # random operations without one are then errors; steps set their own
        tf.config.experimental.enable_op_determinism()
    # With several machines, their strategy must come before the first operation.
    if "TF_CONFIG" not in os.environ:
        _check_response(gpus)


def check_limit(memory_mb: int, cards: Sequence[Card]) -> None:
    """Check that a limit of the memory is not larger than a card.

    Raises:
        InputError: it is.
    """
    for card in cards:
        if 0 < card.total_mb < memory_mb:
            raise InputError(
                f"gpu-memory-mb: expected at most {card.total_mb}, the memory of {card.name}, got "
                f"{memory_mb}; 0 sets no limit"
            )


def _set_memory(gpu: Any, memory_mb: int) -> None:
    """Let the memory on a GPU grow as needed, up to a limit if there is one."""
    import tensorflow as tf

    limited = tf.config.get_logical_device_configuration(gpu)
    if limited and not memory_mb:
        return  # by the program that calls this one
    try:
        # First growth, then the logical device: TensorFlow refuses the other order.
        if not limited:
            tf.config.experimental.set_memory_growth(gpu, True)
        if memory_mb:
            device = tf.config.LogicalDeviceConfiguration(memory_limit=memory_mb)
            tf.config.set_logical_device_configuration(gpu, [device])
    except RuntimeError as error:  # TensorFlow has used the GPU
        if memory_mb:
            raise InputError(
                "gpu-memory-mb: expected a process that has not used the GPU yet, got one that "
                "has; start a new one"
            ) from error


def _check_response(gpus: Sequence[Any]) -> None:
    """Compute something small on each GPU: one that is only listed may be broken.

    Raises:
        InputError: a GPU does not respond.
    """
    import tensorflow as tf

    if not gpus:
        return
    with explain_out_of_memory():
        try:
            for device in tf.config.list_logical_devices("GPU"):
                with tf.device(device.name):
                    product = tf.linalg.matmul(tf.ones([8, 8]), tf.ones([8, 8])).numpy()
                if not (product == 8.0).all():
                    raise InputError(f"{device.name}: expected 8 as a product, got {product[0, 0]}")
        except (tf.errors.OpError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"GPU: expected one that responds, got: {first_line(error)}; check nvidia-smi and "
                "the kernel's log, or hide the GPU with CUDA_VISIBLE_DEVICES=-1"
            ) from error


def device_name() -> str:
    """Return the name of the device that TensorFlow computes on: a GPU's, or `CPU`."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        return str(details.get("device_name", "GPU"))
    return "CPU"


def tf32_is_on() -> bool:
    """Return whether the environment turns TF32 on in processes that have turned it off."""
    return os.environ.get(TF32_VARIABLE, "0") not in ("", "0")


def precision_on(device: str) -> ArithmeticPrecision:
    """Return the precision on a device, by its name, of a process that has turned TF32 off."""
    return "tf32" if device != "CPU" and tf32_is_on() else "float32"


def server_variables() -> dict[str, str]:
    """Return the environment variables of a server: memory as needed, and no TF32.

    Values that are already set stay.
    """
    defaults = {GROWTH_VARIABLE: "true", TF32_VARIABLE: "0"}
    return {name: os.environ.get(name, value) for name, value in defaults.items()}


def session_options() -> Any:
    """Return the GPU options of a session that equal the setup of this process."""
    import tensorflow as tf

    options = tf.compat.v1.GPUOptions(allow_growth=True)
    for gpu in tf.config.list_physical_devices("GPU"):
        for device in tf.config.get_logical_device_configuration(gpu) or ():
            limits = options.experimental.virtual_devices.add()
            limits.memory_limit_mb.append(device.memory_limit)
    return options
