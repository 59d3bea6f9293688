"""The process that loads a SavedModel before it is published."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from regraft_core.formats.fingerprint import WARMUP_FILE

# TensorFlow refuses to change its devices as soon as it has run an operation.
SCRIPT = """
import sys

import tensorflow as tf

from serving.publishing import servable_check


def set_up(setup):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()])
    print("in time")
    sys.exit()


servable_check.set_up_gpus = set_up
servable_check.replay(sys.argv[1])
"""


def test_gpus_are_set_up_before_the_first_operation(tmp_path: Path) -> None:
    warmup = tmp_path / WARMUP_FILE
    warmup.parent.mkdir(parents=True)
    warmup.touch()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "in time\n", done.stderr
