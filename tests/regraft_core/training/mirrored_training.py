"""Run by a test in a separate process: the same training on one device and on two replicas."""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.training.loop import Settings, Trainer
from regraft_core.training.mixed_precision import accelerate
from regraft_core.training.training_source import Source

CLASSES = 3
SETTINGS = Settings(
    phase="full", epochs=2, batch_size=8, learning_rate=3e-3, seed=3, classes=CLASSES,
    gradient_clip=0.01, cosine_decay=True, ema_momentum=0.5, class_weights=(1.0, 2.0, 3.0),
)  # fmt: skip


def source(seed: int, count: int) -> Source:
    """Return random images; the batch size does not divide their number, so batches are padded."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    inputs = (rng.normal(0, 1, (count, 8, 8, 3)) + labels[:, None, None, None]).astype(np.float32)

    def fetch(
        indices: NDArray[np.int64], epoch: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        return inputs[indices], labels[indices]

    return Source(count, fetch, tf.TensorSpec([None, 8, 8, 3], tf.float32))


def network() -> keras.Model:
    """Build a network with adapting BatchNormalization and a penalty on its weights.

    A bias before the normalization has no gradient but rounding errors, which Adam would amplify.
    """
    keras.utils.set_random_seed(1)
    penalty = keras.regularizers.L2(1e-2)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, use_bias=False, kernel_regularizer=penalty),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(CLASSES),
        ]
    )


def trained(strategy: Any) -> list[NDArray[np.float32]]:
    """Train under `strategy`; return the weights with the losses of the epochs."""
    with strategy.scope():
        model = network()
        with accelerate(model.layers, ""):
            trainer = Trainer(model, source(0, 34), source(1, 13), SETTINGS)
            history = trainer.train(SETTINGS)
            measured = trainer.measure()
    losses = [value for line in history for value in (line.loss, line.validation_loss)]
    losses += measured.ravel().tolist()
    return [*model.get_weights(), np.array(losses, np.float32)]


def replicas(kind: str) -> list[str]:
    """Make two logical devices of the first CPU or GPU; return their names."""
    device = tf.config.list_physical_devices(kind)[0]
    limits = {"memory_limit": 2048} if kind == "GPU" else {}
    logical = [tf.config.LogicalDeviceConfiguration(**limits) for _ in range(2)]
    if kind == "GPU":
        tf.config.experimental.set_memory_growth(device, True)
        tf.config.experimental.enable_tensor_float_32_execution(False)
    tf.config.set_logical_device_configuration(device, logical)
    return [f"{kind}:0", f"{kind}:1"]


if __name__ == "__main__":
    devices = replicas(sys.argv[2] if len(sys.argv) > 2 else "CPU")
    one = trained(tf.distribute.get_strategy())
    two = trained(tf.distribute.MirroredStrategy(devices))
    np.savez(sys.argv[1], *one, *two)
