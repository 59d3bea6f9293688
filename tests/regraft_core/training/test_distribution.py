"""Replicas that take the same steps as one device; one of several machines writes the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from regraft_core.runtime.errors import InputError
from regraft_core.training.distribution import distribution_strategy, is_chief, process_count

ROOT = Path(__file__).parents[3]
# Sums over two replicas are added in another order than those of one.
REPLICAS_TOLERANCE = 1e-5


def test_two_replicas_take_the_same_steps_as_one(tmp_path: Path) -> None:
    """With BatchNormalization over all replicas, clipping, a penalty, and padded batches."""
    script = Path(__file__).with_name("mirrored_training.py")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(
        [sys.executable, script, tmp_path / "weights.npz"],
        check=True, env=environment, timeout=300, capture_output=True,
    )  # fmt: skip
    with np.load(tmp_path / "weights.npz") as arrays:
        values = [arrays[name] for name in arrays.files]
    one, two = values[: len(values) // 2], values[len(values) // 2 :]
    for expected, received in zip(one, two, strict=True):
        np.testing.assert_allclose(received, expected, atol=REPLICAS_TOLERANCE)


@pytest.mark.parametrize("cluster", [{"worker": ["a:1", "b:1"]},
                                     {"chief": ["a:1"], "worker": ["b:1"]}])  # fmt: skip
def test_several_machines_only_train_top_and_full(
    monkeypatch: pytest.MonkeyPatch, cluster: dict[str, list[str]]
) -> None:
    task = {"cluster": cluster, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    with pytest.raises(InputError, match=r"2 machines: expected strategy top or full, got auto"):
        distribution_strategy("auto")


@pytest.mark.parametrize(
    ("jobs", "task", "chief"),
    [
        (("worker",), ("worker", 0), True),
        (("worker",), ("worker", 1), False),
        (("chief", "worker"), ("chief", 0), True),
        (("chief", "worker"), ("worker", 0), False),
    ],
)
def test_only_the_first_machine_is_the_chief(
    monkeypatch: pytest.MonkeyPatch, jobs: tuple[str, ...], task: tuple[str, int], chief: bool
) -> None:
    spec = tf.train.ClusterSpec({job: ["a:1", "b:1"] for job in jobs})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(spec, "", *task)
    strategy = SimpleNamespace(cluster_resolver=resolver)
    assert process_count() == 1
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    assert is_chief() is chief
    assert process_count() == 2 * len(jobs)
