"""Extraction has more threads for operations than cores, unless they were chosen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from components.extract_features.operation_threads import (
    PER_CORE,
    THREADS_VARIABLE,
    add_operation_threads,
)
from regraft_core.runtime.machine import available_cores

CODE = """
import sys
import tensorflow as tf
from components.extract_features.operation_threads import add_operation_threads

before = int(sys.argv[1])
if before:
    tf.config.threading.set_inter_op_parallelism_threads(before)
add_operation_threads()
tf.zeros([]).numpy()
print(tf.config.threading.get_inter_op_parallelism_threads())
"""


@pytest.mark.parametrize(
    ("before", "variable", "threads"),
    [(0, "", PER_CORE * available_cores()), (3, "", 3), (0, "3", 0)],
)
def test_threads_are_added_unless_they_were_chosen(
    before: int, variable: str, threads: int
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != THREADS_VARIABLE}
    environment |= {"CUDA_VISIBLE_DEVICES": ""} | ({THREADS_VARIABLE: variable} if variable else {})
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(before)],
        env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert int(done.stdout) == threads


def test_a_process_that_has_used_tensorflow_keeps_its_threads() -> None:
    import tensorflow as tf

    tf.zeros([]).numpy()
    before = tf.config.threading.get_inter_op_parallelism_threads()
    add_operation_threads()
    assert tf.config.threading.get_inter_op_parallelism_threads() == before
