"""Winograd's convolution for small maps, as four products of matrices.

Above a usual cut, maps are small and channels many, and a CPU spends its time in convolutions of
3x3. F(3x3, 3x3) makes 3x3 outputs from 5x5 inputs by 25 multiplications for each pair of channels
instead of 81. Over a small map, bringing all places into the tiles' domain and back is one matrix
each, so that nothing but products of matrices is left, whose gradients are such products again.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015; the matrices by
Toom and Cook's method.
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
# Share of the direct way's multiplications up to which it is faster.
WORTHWHILE = 2 / 3


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
    height, width, channels = inputs.shape[1:]
    filters = kernel.shape[-1]
    to_tiles, from_tiles, of_kernel = _matrices(height, width)
    places = tf.reshape(tf.transpose(inputs, [1, 2, 0, 3]), [height * width, -1])
    tiles = tf.reshape(to_tiles @ places, [INPUTS**2, -1, channels])
    weights = tf.reshape(of_kernel @ tf.reshape(kernel, [SIDE**2, -1]), [-1, channels, filters])
    products = tf.reshape(tiles @ weights, [to_tiles.shape[0], -1])
    outputs = tf.reshape(from_tiles @ products, [height, width, -1, filters])
    return tf.transpose(outputs, [2, 0, 1, 3])


def worthwhile(height: int, width: int, channels: int, filters: int) -> bool:
    """Whether `convolve` takes clearly fewer multiplications than the direct way."""
    places = height * width
    tiled = INPUTS**2 * -(-height // OUTPUTS) * -(-width // OUTPUTS)
    ours = places * tiled * (channels + filters) + tiled * channels * filters
    return ours <= WORTHWHILE * SIDE**2 * places * channels * filters


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
def _matrices(height: int, width: int) -> tuple[NDArray[np.float32], ...]:
    """Return the matrices [tiled, places], [places, tiled] and [25, 9] of a map of places.

    Places are counted by (y, x), `tiled` by (y and x in a tile, the tile's row and column).
    """
    (rows_in, rows_out), (columns_in, columns_out) = _along(height), _along(width)
    places = height * width
    to_tiles = np.einsum("uay,vbx->uvabyx", rows_in, columns_in).reshape(-1, places)
    from_tiles = np.einsum("yua,xvb->yxuvab", rows_out, columns_out).reshape(places, -1)
    _, kernel, _ = _toom_cook()
    of_kernel = np.kron(kernel, kernel)
    return tuple(matrix.astype(np.float32) for matrix in (to_tiles, from_tiles, of_kernel))


def _along(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return one dimension's [5, tiles, size] into tiles, zero beyond the border, and back."""
    outputs, _, inputs = _toom_cook()
    tiles = -(-size // OUTPUTS)
    into, back = np.zeros((INPUTS, tiles, size)), np.zeros((size, INPUTS, tiles))
    for tile in range(tiles):
        first = OUTPUTS * tile
        for place in range(max(first - 1, 0), min(first - 1 + INPUTS, size)):
            into[:, tile, place] = inputs[:, place - first + 1]
        for place in range(first, min(first + OUTPUTS, size)):
            back[place, :, tile] = outputs[place - first]
    return into, back


def _toom_cook() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return A [3, 5], G [5, 3], B [5, 5]: y = A (G g * B d) correlates d [5] with g [3].

    Multiplying polynomials by their values at five points, transposed.
    """

    def values(count: int) -> NDArray[np.float64]:
        at_infinity = [0.0] * (count - 1) + [1.0]
        return np.array([*([p**power for power in range(count)] for p in POINTS), at_infinity])

    inverse = np.linalg.inv(values(INPUTS)).astype(np.float64)
    return values(OUTPUTS).T, values(SIDE), inverse.T
