"""TensorFlow's threads in a process whose cores decode images and run a network."""

from __future__ import annotations

import contextlib
import os

from regraft_core.runtime.machine import available_cores

PER_CORE = 2
THREADS_VARIABLE = "TF_NUM_INTEROP_THREADS"  # TensorFlow reads it


def add_operation_threads() -> None:
    """Let TensorFlow run more operations at once than there are cores, if there is no GPU.

    Decoding a photograph is one long operation. With a thread for each core, the many short ones of
    the network wait behind it, and cores idle. The bits of results do not depend on this number.
    A process that has already used TensorFlow keeps its threads, and so does one for which they
    were chosen.
    """
    import tensorflow as tf

    threading = tf.config.threading
    chosen = THREADS_VARIABLE in os.environ or threading.get_inter_op_parallelism_threads()
    if chosen or tf.config.list_physical_devices("GPU"):
        return
    with contextlib.suppress(RuntimeError):  # it has used TensorFlow
        threading.set_inter_op_parallelism_threads(PER_CORE * available_cores())
