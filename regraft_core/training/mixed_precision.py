"""Half precision on GPUs that gain from it; models are saved in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from regraft_core.formats.options import Precision

# The first generation of NVIDIA GPUs with tensor cores; older ones gain nothing from float16.
TENSOR_CORES = (7, 0)


def gpu_capabilities() -> list[tuple[int, int]]:
    """Return the compute capability of each GPU of TensorFlow; (0, 0) if a GPU has none."""
    details = tf.config.experimental.get_device_details
    gpus = tf.config.list_physical_devices("GPU")
    return [details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]


def use_mixed_precision(precision: Precision, capabilities: Sequence[tuple[int, int]]) -> bool:
    """Return whether to compute in half precision; `auto` does if every GPU has tensor cores."""
    if precision != "auto":
        return precision == "mixed"
    return bool(capabilities) and min(capabilities) >= TENSOR_CORES


@contextlib.contextmanager
def accelerate(layers: Sequence[keras.layers.Layer], *, mixed: bool) -> Iterator[None]:
    """Let `layers` compute in float16 with float32 variables, if `mixed`, while the body runs.

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
        for leaf in leaves if mixed else ():
            leaf.dtype_policy = keras.DTypePolicy("mixed_float16")
        for norm in norms:
            norm.synchronized = several
        yield
    finally:
        for leaf, policy in zip(leaves, policies, strict=True):
            leaf.dtype_policy = policy
        for norm in norms:
            norm.synchronized = False
