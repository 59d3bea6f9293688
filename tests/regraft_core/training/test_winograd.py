"""Winograd's convolution equals the direct one, and layers use it only while the body runs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from regraft_core.training.winograd import convolve, winograd, worthwhile

# Relative to the largest value: sums have another order, and terms of other magnitudes.
TOLERANCE = 5e-5


@pytest.mark.parametrize(
    ("height", "width", "channels", "filters"),
    [(9, 9, 24, 16), (3, 3, 8, 8), (5, 7, 6, 10), (1, 1, 4, 4), (2, 4, 5, 3), (14, 14, 8, 8)],
)
def test_it_equals_the_direct_convolution(
    height: int, width: int, channels: int, filters: int
) -> None:
    """Values, and gradients of inputs and kernel, also if tiles do not divide the size."""
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.normal(size=(3, height, width, channels)), tf.float32)
    kernel = tf.constant(rng.normal(size=(3, 3, channels, filters)), tf.float32)
    weights = tf.constant(rng.normal(size=(3, height, width, filters)), tf.float32)
    results = []
    for function in (convolve, lambda x, k: tf.nn.conv2d(x, k, 1, "SAME")):
        with tf.GradientTape() as tape:
            tape.watch([inputs, kernel])
            outputs = function(inputs, kernel)
            loss = tf.reduce_sum(outputs * weights)
        results.append([outputs, *tape.gradient(loss, [inputs, kernel])])
    for received, expected in zip(*results, strict=True):
        assert received.shape == expected.shape
        limit = TOLERANCE * float(tf.reduce_max(tf.abs(expected)))
        np.testing.assert_allclose(received, expected, atol=limit)


def test_layers_use_it_while_the_body_runs() -> None:
    inputs = keras.Input((9, 9, 256))
    tensor = keras.layers.Conv2D(256, 3, padding="same", activation="relu")(inputs)
    tensor = keras.layers.Conv2D(128, 3, strides=2, padding="same")(tensor)
    model = keras.Model(inputs, keras.layers.Conv2D(8, 1)(tensor))

    def convolutions() -> int:
        graph = tf.function(model).get_concrete_function(tf.TensorSpec([None, 9, 9, 256])).graph
        return sum(operation.type == "Conv2D" for operation in graph.get_operations())

    pixels = np.random.default_rng(0).normal(size=(2, 9, 9, 256)).astype(np.float32)
    before = model(pixels).numpy()
    assert convolutions() == 3
    with winograd(model.layers):
        assert convolutions() == 2
        np.testing.assert_allclose(model(pixels), before, atol=TOLERANCE * np.abs(before).max())
        assert "winograd" not in model.to_json()
    assert convolutions() == 3
    np.testing.assert_array_equal(model(pixels), before)


def test_the_direct_convolution_is_restored_after_an_error() -> None:
    layer = keras.layers.Conv2D(128, 3, padding="same")
    layer.build((None, 9, 9, 128))
    with pytest.raises(ValueError, match="stop"), winograd([layer]):
        assert "convolution_op" in vars(layer)
        raise ValueError("stop")
    assert "convolution_op" not in vars(layer)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((9, 9, 512, 512), True),
        ((14, 14, 512, 512), True),
        ((5, 5, 512, 512), True),
        ((9, 9, 16, 16), False),
        ((75, 75, 128, 128), False),
        ((2, 2, 512, 512), False),
    ],
)
def test_large_maps_and_few_channels_keep_the_direct_convolution(
    shape: tuple[int, int, int, int], expected: bool
) -> None:
    assert worthwhile(*shape) is expected
