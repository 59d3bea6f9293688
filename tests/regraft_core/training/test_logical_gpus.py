"""Two logical devices of a card take the same steps as one, on a machine that has a card."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

ROOT = Path(__file__).parents[3]
# The kernels of a GPU add in another order for another batch size.
TOLERANCE = 1e-4


@pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="there is no GPU")
def test_two_logical_gpus_take_the_same_steps_as_one(tmp_path: Path) -> None:
    script = Path(__file__).with_name("mirrored_training.py")
    subprocess.run(
        [sys.executable, script, tmp_path / "weights.npz", "GPU"],
        check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=300, capture_output=True,
    )  # fmt: skip
    with np.load(tmp_path / "weights.npz") as arrays:
        values = [arrays[name] for name in arrays.files]
    one, two = values[: len(values) // 2], values[len(values) // 2 :]
    for expected, received in zip(one, two, strict=True):
        np.testing.assert_allclose(received, expected, atol=TOLERANCE)
