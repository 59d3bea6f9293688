"""Winograd's convolution, made of matrix products.

On a CPU, a backbone such as VGG16 spends most of its time in 3x3 convolutions. F(3x3, 3x3) computes
3x3 outputs from 5x5 inputs with 25 multiplications per pair of channels instead of 81. For small
feature maps with many channels, transforming the inputs and outputs costs little in comparison. All
of it is matrix products, and so are the gradients.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016; the matrices
are by the Toom-Cook method.
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
# Points at which the method evaluates its polynomials, in addition to infinity; they have small
# rounding errors.
POINTS = (0.0, 1.0, -1.0, 0.5)
# Fraction of the direct convolution's multiplications up to which Winograd's is faster, because the
# transforms are limited by memory bandwidth.
WORTHWHILE = 1 / 2


@contextlib.contextmanager
def winograd(layers: Sequence[keras.layers.Layer]) -> Iterator[None]:
    """Use Winograd's method in those `layers` that it makes faster, while the body runs.

    Nothing changes on a GPU, whose own kernels are faster.
    """
    suitable = [] if tf.config.list_logical_devices("GPU") else list(filter(_is_suitable, layers))
    for layer in suitable:
        layer.convolution_op = _by_size(layer.convolution_op)
    try:
        yield
    finally:
        for layer in suitable:
            del layer.convolution_op


def convolve(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolve float32 [n, h, w, c] by [3, 3, c, k], stride 1, padding `same`: [n, h, w, k]."""
    count = tf.shape(inputs)[0]
    height, width, channels = inputs.shape[1:]
    filters = kernel.shape[-1]
    (rows_in, rows_out), (columns_in, columns_out) = _tiling(height), _tiling(width)
    tall, wide = len(rows_in), len(columns_in)
    # [n, h, w, c] -> [n, (u, tile row), (v, tile column), c] -> [(u, v), all tiles, c]
    tiles = rows_in @ tf.reshape(inputs, [count, height, width * channels])
    tiles = columns_in @ tf.reshape(tiles, [count, tall, width, channels])
    tiles = tf.reshape(tiles, [count, INPUTS, tall // INPUTS, INPUTS, wide // INPUTS, channels])
    tiles = tf.reshape(tf.transpose(tiles, [1, 3, 0, 2, 4, 5]), [INPUTS**2, -1, channels])
    weights = _kernel_transform() @ tf.reshape(kernel, [SIDE**2, channels * filters])
    outputs = tiles @ tf.reshape(weights, [INPUTS**2, channels, filters])
    # And back, in reverse order.
    outputs = tf.reshape(outputs, [INPUTS, INPUTS, count, tall // INPUTS, wide // INPUTS, filters])
    outputs = tf.reshape(tf.transpose(outputs, [2, 0, 3, 1, 4, 5]), [count, tall, wide, filters])
    outputs = tf.reshape(columns_out @ outputs, [count, tall, width * filters])
    return tf.reshape(rows_out @ outputs, [count, height, width, filters])


def worthwhile(height: int, width: int, channels: int, filters: int) -> bool:
    """Return whether `convolve` needs few enough multiplications to be faster."""
    tall, wide = (INPUTS * -(-size // OUTPUTS) for size in (height, width))
    transforms = (channels + filters) * tall * width * (height + wide)
    multiplications = transforms + tall * wide * channels * filters
    return multiplications <= WORTHWHILE * SIDE**2 * height * width * channels * filters


def _is_suitable(layer: keras.layers.Layer) -> bool:
    return (
        isinstance(layer, keras.layers.Conv2D)
        and layer.kernel_size == (SIDE, SIDE)
        and layer.strides == layer.dilation_rate == (1, 1)
        and (layer.padding, layer.groups, layer.data_format) == ("same", 1, "channels_last")
    )


def _by_size(direct: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a convolution that is Winograd's if the shapes are known and make it worthwhile."""

    def convolution(inputs: Any, kernel: Any) -> Any:
        kernel = tf.convert_to_tensor(kernel)
        shape = (*inputs.shape[1:], kernel.shape[-1])
        if None in shape or inputs.dtype != tf.float32 or not worthwhile(*shape):
            return direct(inputs, kernel)
        return convolve(inputs, kernel)

    return convolution


@functools.cache
def _tiling(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return one dimension's transform into tiles [5 * tiles, size], zero-padded, and back."""
    outputs, _, inputs = _toom_cook()
    tiles = -(-size // OUTPUTS)
    into, back = np.zeros((INPUTS, tiles, size)), np.zeros((size, INPUTS, tiles))
    for tile in range(tiles):
        first = OUTPUTS * tile
        for position in range(max(first - 1, 0), min(first - 1 + INPUTS, size)):
            into[:, tile, position] = inputs[:, position - first + 1]
        for position in range(first, min(first + OUTPUTS, size)):
            back[position, :, tile] = outputs[position - first]
    return (into.reshape(-1, size).astype(np.float32), back.reshape(size, -1).astype(np.float32))


@functools.cache
def _kernel_transform() -> NDArray[np.float32]:
    """Return the matrix [25, 9] that transforms both dimensions of a kernel."""
    _, kernel, _ = _toom_cook()
    return np.kron(kernel, kernel).astype(np.float32)


def _toom_cook() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return A [3, 5], G [5, 3], B [5, 5]: y = A (G g * B d) correlates d [5] with g [3].

    This is polynomial multiplication by values at five points, transposed.
    """

    def values(count: int) -> NDArray[np.float64]:
        at_infinity = [0.0] * (count - 1) + [1.0]
        return np.array([*([p**power for power in range(count)] for p in POINTS), at_infinity])

    inverse = np.linalg.inv(values(INPUTS)).astype(np.float64)
    return values(OUTPUTS).T, values(SIDE), inverse.T
