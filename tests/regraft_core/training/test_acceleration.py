"""Half precision in training only, and replicas that take the same steps as one device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from regraft_core.backbones.build import build_backbone
from regraft_core.runtime.errors import InputError
from regraft_core.training.acceleration import (
    accelerate,
    distribution_strategy,
    is_chief,
    use_mixed_precision,
)

ROOT = Path(__file__).parents[3]
# Sums over two replicas are added in another order than those of one.
REPLICAS_TOLERANCE = 1e-5


@pytest.mark.parametrize(
    ("precision", "capabilities", "expected"),
    [
        ("auto", [], False),
        ("auto", [(7, 0)], True),
        ("auto", [(8, 6), (8, 6)], True),
        ("auto", [(6, 1)], False),
        ("auto", [(8, 0), (6, 1)], False),
        ("auto", [(0, 0)], False),
        ("float32", [(9, 0)], False),
        ("mixed", [], True),
    ],
)
def test_auto_uses_half_precision_if_every_gpu_has_tensor_cores(
    precision: str, capabilities: list[tuple[int, int]], expected: bool
) -> None:
    assert use_mixed_precision(precision, capabilities) is expected  # type: ignore[arg-type]


def test_half_precision_ends_with_the_training() -> None:
    """Layers compute in float16 with float32 variables, and are saved as float32 layers."""
    backbone = build_backbone("tiny", 32)
    head = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
    model = keras.Model(backbone.input, head(backbone.output))
    pixels = np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
    before = model(pixels).numpy()
    with accelerate(backbone.layers, mixed=True):
        assert backbone(pixels).dtype == "float16"
        half = model(pixels)
        assert half.dtype == "float32"
        assert {variable.dtype for variable in model.variables} == {"float32"}
    np.testing.assert_array_equal(model(pixels).numpy(), before)
    assert 0 < np.abs(half.numpy() - before).max() < 0.02
    assert "float16" not in model.to_json()


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
def test_several_machines_only_train_full(
    monkeypatch: pytest.MonkeyPatch, cluster: dict[str, list[str]]
) -> None:
    task = {"cluster": cluster, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    with pytest.raises(InputError, match=r"names 2 machines: expected strategy full, got top"):
        distribution_strategy("top")


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
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    assert is_chief() is chief
