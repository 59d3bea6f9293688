"""Training on several GPUs or several machines."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from regraft_core.formats.options.fine_tune import SHARED_STRATEGIES
from regraft_core.runtime.errors import InputError, RegraftError


def distribution_strategy(strategy: str) -> Any:
    """Return the `tf.distribute` strategy for fine-tuning: several machines, several GPUs, or one.

    If `TF_CONFIG` names several machines, call it before TensorFlow runs any operation.

    Raises:
        InputError: several machines and a fine-tuning strategy other than `top` and `full`.
        RegraftError: TensorFlow has already run an operation.
    """
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
    workers = sum(len(cluster.get(job, ())) for job in ("chief", "worker"))
    if workers > 1 and strategy not in SHARED_STRATEGIES:
        raise InputError(
            f"TF_CONFIG names {workers} machines: expected strategy top or full, got {strategy}; "
            "the others train on one machine"
        )
    if workers > 1:
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except RuntimeError as error:
            raise RegraftError(f"cannot join the machines of TF_CONFIG: {error}") from error
    if len(tf.config.list_logical_devices("GPU")) > 1 and strategy != "head":
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def process_count() -> int:
    """Return how many processes train together, on several machines or on one."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    jobs = {} if resolver is None else resolver.cluster_spec().as_dict()
    return max(sum(map(len, jobs.values())), 1)


def same_everywhere(choice: int, choices: int) -> bool:
    """Return whether all processes that train together have made the same choice; all ask at once.

    Args:
        choice: what this process has chosen, in [0, choices).
        choices: number of choices that there are.
    """
    strategy = tf.distribute.get_strategy()
    if process_count() == 1:
        return True
    votes = strategy.experimental_distribute_values_from_function(
        lambda _: tf.one_hot(choice, choices)
    )
    counts = strategy.reduce("SUM", votes, axis=None).numpy()
    return round(float(counts[choice])) == strategy.num_replicas_in_sync


def is_chief() -> bool:
    """Return whether this process writes the model: on the first of several machines, or on one."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    if resolver is None or resolver.task_id is None:
        return True
    first = "chief" if "chief" in resolver.cluster_spec().as_dict() else "worker"
    return bool(resolver.task_type == first and resolver.task_id == 0)
