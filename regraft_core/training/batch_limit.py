"""The largest batch that can fit, from the shapes of a model alone.

A batch that is far too large is refused by the memory only after minutes: each allocation that
fails is tried for ten seconds, and on a GPU, tensors that 32 bits cannot index end the process.
"""

from __future__ import annotations

import math
import os

import keras
import tensorflow as tf

from regraft_core.runtime.nvidia_smi import read_driver
from regraft_core.runtime.step_reports import log_progress

INDEXED = 2**31 - 1
HALF_BYTES, FLOAT32_BYTES = 2, 4


def fitting_batch(
    what: str, batch_size: int, model: keras.Model, gpu_memory_mb: int = 0, *, half: bool = False
) -> int:
    """Return the batch size, halved until a batch can fit; report a change.

    Args:
        what: the step, for its progress.
        batch_size: the requested size.
        model: the model that computes it.
        gpu_memory_mb: the limit of the memory on a GPU; 0 sets none.
        half: the model computes in half precision.
    """
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    memory = _gpu_bytes(gpu_memory_mb) if on_gpu else _main_memory_bytes()
    value_bytes = HALF_BYTES if half else FLOAT32_BYTES
    largest = largest_batch(model, memory, value_bytes, indexed=INDEXED if on_gpu else 0)
    if on_gpu:  # each computes a part of the batch
        largest *= tf.distribute.get_strategy().num_replicas_in_sync
    fitting = batch_size
    while fitting > max(largest, 1):
        fitting //= 2
    if fitting < batch_size:
        log_progress(
            f"{what}: batches of {batch_size} cannot fit in {memory / 1e9:.3g} GB, goes on with "
            f"{fitting}"
        )
    return fitting


def largest_batch(
    model: keras.Model, memory_bytes: int, value_bytes: int = FLOAT32_BYTES, indexed: int = 0
) -> int:
    """Return the largest number of images that can fit; fewer may, because this is a bound.

    A layer needs its inputs and its output at the same time.

    Args:
        model: a functional model; its shapes are known but for the batch.
        memory_bytes: the memory; 0 if it is not known.
        value_bytes: of one value of an activation.
        indexed: the number of values that a tensor can have; 0 sets no limit.
    """
    outputs = [0]
    needed = [0]
    for layer in model.layers:
        for node in layer._inbound_nodes:
            out = sum(map(_values, node.output_tensors))
            outputs.append(max(map(_values, node.output_tensors)))
            needed.append(out + sum(map(_values, node.input_tensors)))
    limits = []
    if memory_bytes and max(needed):
        limits.append(memory_bytes // (max(needed) * value_bytes))
    if indexed and max(outputs):
        limits.append(indexed // max(outputs))
    return min(limits, default=2**31)


def _values(tensor: keras.KerasTensor) -> int:
    return math.prod(size or 1 for size in tensor.shape[1:])


def _gpu_bytes(limit_mb: int) -> int:
    driver = read_driver()
    totals = [card.total_mb for card in (driver.visible_cards() if driver else ())]
    found = [size for size in (limit_mb, min(totals, default=0)) if size]
    return min(found, default=0) << 20


def _main_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
