"""Half precision on GPUs that gain from it; models are saved in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal

import keras
import tensorflow as tf

from regraft_core.formats.options.option_types import Precision

# The first generation of NVIDIA GPUs with tensor cores; older ones gain nothing from float16.
TENSOR_CORES = (7, 0)
# The first generation that computes in bfloat16, whose range is that of float32.
BFLOAT16 = (8, 0)
HalfPrecision = Literal["", "float16", "bfloat16"]


def gpu_capabilities() -> list[tuple[int, int]]:
    """Return the compute capability of each GPU of TensorFlow; (0, 0) if a GPU has none."""
    details = tf.config.experimental.get_device_details
    gpus = tf.config.list_physical_devices("GPU")
    return [details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]


def gpu_names() -> list[str]:
    """Return the name of each GPU of TensorFlow, such as `NVIDIA H100 80GB HBM3`."""
    details = tf.config.experimental.get_device_details
    gpus = tf.config.list_physical_devices("GPU")
    return [details(gpu).get("device_name", "GPU") for gpu in gpus]


def half_precisions(capabilities: Sequence[tuple[int, int]]) -> list[HalfPrecision]:
    """Return the half precisions that every GPU computes faster than float32.

    Args:
        capabilities: the compute capability of each GPU.
    """
    first: dict[HalfPrecision, tuple[int, int]] = {"float16": TENSOR_CORES, "bfloat16": BFLOAT16}
    lowest = min(capabilities, default=(0, 0))
    return [half for half, capability in first.items() if lowest >= capability]


def choose_half_precision(
    precision: Precision, capabilities: Sequence[tuple[int, int]]
) -> HalfPrecision:
    """Return the half precision to compute in, "" for float32.

    `auto` uses one if every GPU has tensor cores. It is bfloat16, which needs no scaling of the
    loss, if every GPU computes in it, and on a CPU, which does not compute in float16.
    """
    lowest = min(capabilities, default=(0, 0))
    if precision == "float32" or (precision == "auto" and lowest < TENSOR_CORES):
        return ""
    return "bfloat16" if lowest >= BFLOAT16 or not capabilities else "float16"


@contextlib.contextmanager
def accelerate(layers: Sequence[keras.layers.Layer], half: HalfPrecision) -> Iterator[None]:
    """Let `layers` compute in half precision with float32 variables while the body runs.

    Their policies are restored afterwards, so that saved and exported models compute in float32.
    With several replicas, BatchNormalization also computes its statistics over all of them.
    """
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    leaves = [leaf for layer in layers for leaf in layer._flatten_layers()
              if not hasattr(leaf, "layers") and not isinstance(leaf, keras.layers.InputLayer)
              ]  # fmt: skip
    norms = [leaf for leaf in leaves if isinstance(leaf, keras.layers.BatchNormalization)]
    policies = [leaf.dtype_policy for leaf in leaves]
    try:
        for leaf in leaves if half else ():
            leaf.dtype_policy = keras.DTypePolicy(f"mixed_{half}")
        for norm in norms:
            norm.synchronized = several
        yield
    finally:
        for leaf, policy in zip(leaves, policies, strict=True):
            leaf.dtype_policy = policy
        for norm in norms:
            norm.synchronized = False
