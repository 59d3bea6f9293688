"""Faster training where the machine offers it: half precision, several GPUs, several machines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from regraft_core.runtime.errors import InputError, RegraftError

Precision = Literal["auto", "float32", "mixed"]
# NVIDIA's first generation with tensor cores; older GPUs compute half precision no faster.
TENSOR_CORES = (7, 0)


def gpu_capabilities() -> list[tuple[int, int]]:
    """Return the compute capability of each GPU that TensorFlow sees; (0, 0) where it has none."""
    details = tf.config.experimental.get_device_details
    gpus = tf.config.list_physical_devices("GPU")
    return [details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]


def mixed_precision(wanted: Precision, capabilities: Sequence[tuple[int, int]]) -> bool:
    """Whether to compute in half precision: `auto` does where every GPU gains from it."""
    if wanted != "auto":
        return wanted == "mixed"
    return bool(capabilities) and min(capabilities) >= TENSOR_CORES


@contextlib.contextmanager
def accelerated(layers: Sequence[keras.layers.Layer], *, mixed: bool) -> Iterator[None]:
    """Let `layers` compute in float16 with float32 variables, if `mixed`, while the body runs.

    Their policies are put back afterwards, so that what is saved and exported computes in float32.
    With several replicas, BatchNormalization also takes its statistics over all of them.
    """
    spread = tf.distribute.get_strategy().num_replicas_in_sync > 1
    leaves = [leaf for layer in layers for leaf in layer._flatten_layers()
              if not hasattr(leaf, "layers") and not isinstance(leaf, keras.layers.InputLayer)
              ]  # fmt: skip
    norms = [leaf for leaf in leaves if isinstance(leaf, keras.layers.BatchNormalization)]
    policies = [leaf.dtype_policy for leaf in leaves]
    try:
        for leaf in leaves if mixed else ():
            leaf.dtype_policy = keras.DTypePolicy("mixed_float16")
        for norm in norms:
            norm.synchronized = spread
        yield
    finally:
        for leaf, policy in zip(leaves, policies, strict=True):
            leaf.dtype_policy = policy
        for norm in norms:
            norm.synchronized = False


def training_strategy(strategy: str) -> Any:
    """Return the `tf.distribute` strategy of a fine-tuning: several machines, several GPUs, or one.

    Must be called before TensorFlow has run anything where `TF_CONFIG` names several machines.

    Raises:
        InputError: several machines for another fine-tuning strategy than `full`.
        RegraftError: TensorFlow was in use already.
    """
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
    workers = sum(len(cluster.get(job, ())) for job in ("chief", "worker"))
    if workers > 1 and strategy != "full":
        raise InputError(
            f"TF_CONFIG names {workers} machines: only strategy full trains on several, "
            f"got {strategy}"
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
    """Whether this process writes what is trained: the first of several machines, or the only."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    if resolver is None or resolver.task_id is None:
        return True
    first = "chief" if "chief" in resolver.cluster_spec().as_dict() else "worker"
    return bool(resolver.task_type == first and resolver.task_id == 0)
