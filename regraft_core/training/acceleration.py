"""Faster training: half precision, several GPUs, several machines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from regraft_core.formats.options import Precision
from regraft_core.runtime.errors import InputError, RegraftError

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


def distribution_strategy(strategy: str) -> Any:
    """Return the `tf.distribute` strategy for fine-tuning: several machines, several GPUs, or one.

    If `TF_CONFIG` names several machines, call it before TensorFlow runs any operation.

    Raises:
        InputError: several machines and a fine-tuning strategy other than `full`.
        RegraftError: TensorFlow has already run an operation.
    """
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
    workers = sum(len(cluster.get(job, ())) for job in ("chief", "worker"))
    if workers > 1 and strategy != "full":
        raise InputError(
            f"TF_CONFIG names {workers} machines: expected strategy full, got {strategy}; the "
            "others train on one machine"
        )
    if workers > 1:
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except RuntimeError as error:
            raise RegraftError(f"cannot join the machines of TF_CONFIG: {error}") from error
    if len(tf.config.list_logical_devices("GPU")) > 1 and strategy != "head":
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief() -> bool:
    """Return whether this process writes the model: on the first of several machines, or on one."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    if resolver is None or resolver.task_id is None:
        return True
    first = "chief" if "chief" in resolver.cluster_spec().as_dict() else "worker"
    return bool(resolver.task_type == first and resolver.task_id == 0)
