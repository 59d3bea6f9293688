"""Winograd's convolution, made of products of matrices.

A CPU spends the time of a backbone such as VGG16 in convolutions of 3x3. F(3x3, 3x3) makes 3x3
outputs from 5x5 inputs by 25 multiplications for each pair of channels instead of 81. Where maps
are small and channels many, bringing inputs into that domain and outputs back costs little beside
it. All of it is products of matrices, so that the gradients are such products again.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016; the matrices
by Toom and Cook's method.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

SIDE, OUTPUTS = 3, 3
INPUTS = OUTPUTS + SIDE - 1
# Where the polynomials behind the method are evaluated, besides infinity; these round little.
POINTS = (0.0, 1.0, -1.0, 0.5)
# Share of the direct way's multiplications up to which it is faster, as bringing tiles there and
# back is bound by memory.
WORTHWHILE = 1 / 2


@contextlib.contextmanager
def winograd(layers: Sequence[keras.layers.Layer]) -> Iterator[None]:
    """Let those of `layers` that gain from it convolve by Winograd's method while the body runs.

    Nothing changes where TensorFlow sees a GPU, whose kernels do better by themselves.
    """
    fit = [] if tf.config.list_logical_devices("GPU") else [one for one in layers if _fits(one)]
    for layer in fit:
        layer.convolution_op = _by_size(layer.convolution_op)
    try:
        yield
    finally:
        for layer in fit:
            del layer.convolution_op


def convolve(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolve float32 [n, h, w, c] by [3, 3, c, k], stride 1, padding `same`: [n, h, w, k]."""
    count = tf.shape(inputs)[0]
    height, width, channels = inputs.shape[1:]
    filters = kernel.shape[-1]
    (rows_in, rows_out), (columns_in, columns_out) = _along(height), _along(width)
    tall, wide = len(rows_in), len(columns_in)
    # [n, h, w, c] -> [n, (u, tile row), (v, tile column), c] -> [(u, v), all tiles, c]
    tiles = rows_in @ tf.reshape(inputs, [count, height, width * channels])
    tiles = columns_in @ tf.reshape(tiles, [count, tall, width, channels])
    tiles = tf.reshape(tiles, [count, INPUTS, tall // INPUTS, INPUTS, wide // INPUTS, channels])
    tiles = tf.reshape(tf.transpose(tiles, [1, 3, 0, 2, 4, 5]), [INPUTS**2, -1, channels])
    weights = _of_kernel() @ tf.reshape(kernel, [SIDE**2, channels * filters])
    outputs = tiles @ tf.reshape(weights, [INPUTS**2, channels, filters])
    # The same way back.
    outputs = tf.reshape(outputs, [INPUTS, INPUTS, count, tall // INPUTS, wide // INPUTS, filters])
    outputs = tf.reshape(tf.transpose(outputs, [2, 0, 3, 1, 4, 5]), [count, tall, wide, filters])
    outputs = tf.reshape(columns_out @ outputs, [count, tall, width * filters])
    return tf.reshape(rows_out @ outputs, [count, height, width, filters])


def worthwhile(height: int, width: int, channels: int, filters: int) -> bool:
    """Whether `convolve` takes so few multiplications that it is faster than the direct way."""
    tall, wide = (INPUTS * -(-size // OUTPUTS) for size in (height, width))
    there_and_back = (channels + filters) * tall * width * (height + wide)
    ours = there_and_back + tall * wide * channels * filters
    return ours <= WORTHWHILE * SIDE**2 * height * width * channels * filters


def _fits(layer: keras.layers.Layer) -> bool:
    return (
        isinstance(layer, keras.layers.Conv2D)
        and layer.kernel_size == (SIDE, SIDE)
        and layer.strides == layer.dilation_rate == (1, 1)
        and (layer.padding, layer.groups, layer.data_format) == ("same", 1, "channels_last")
    )


def _by_size(direct: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a convolution that is Winograd's where the shapes are known and make it worthwhile."""

    def convolution(inputs: Any, kernel: Any) -> Any:
        kernel = tf.convert_to_tensor(kernel)
        shape = (*inputs.shape[1:], kernel.shape[-1])
        if None in shape or inputs.dtype != tf.float32 or not worthwhile(*shape):
            return direct(inputs, kernel)
        return convolve(inputs, kernel)

    return convolution


@functools.cache
def _along(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return one dimension's [5 * tiles, size] into tiles, zero beyond the border, and back."""
    outputs, _, inputs = _toom_cook()
    tiles = -(-size // OUTPUTS)
    into, back = np.zeros((INPUTS, tiles, size)), np.zeros((size, INPUTS, tiles))
    for tile in range(tiles):
        first = OUTPUTS * tile
        for place in range(max(first - 1, 0), min(first - 1 + INPUTS, size)):
            into[:, tile, place] = inputs[:, place - first + 1]
        for place in range(first, min(first + OUTPUTS, size)):
            back[place, :, tile] = outputs[place - first]
    return (into.reshape(-1, size).astype(np.float32), back.reshape(size, -1).astype(np.float32))


@functools.cache
def _of_kernel() -> NDArray[np.float32]:
    """Return the matrix [25, 9] of both dimensions of a kernel."""
    _, kernel, _ = _toom_cook()
    return np.kron(kernel, kernel).astype(np.float32)


def _toom_cook() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return A [3, 5], G [5, 3], B [5, 5]: y = A (G g * B d) correlates d [5] with g [3].

    Multiplying polynomials by their values at five points, transposed.
    """

    def values(count: int) -> NDArray[np.float64]:
        at_infinity = [0.0] * (count - 1) + [1.0]
        return np.array([*([p**power for power in range(count)] for p in POINTS), at_infinity])

    inverse = np.linalg.inv(values(INPUTS)).astype(np.float64)
    return values(OUTPUTS).T, values(SIDE), inverse.T
