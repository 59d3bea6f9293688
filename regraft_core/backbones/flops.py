"""Floating-point operations of layers and models per image, counted from shapes.

A multiplication with its addition counts as two. Convolutions and matrix products are exact.
Element-wise operations are counted by the size of their output. Moving data costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

# Operations per output element at inference, where BatchNormalization is a scale and a shift.
_ELEMENTWISE = {
    "Activation": 1,
    "Add": 1,
    "BatchNormalization": 2,
    "GELU": 8,
    "LayerNormalization": 7,
    "LayerScale": 1,
    "Multiply": 1,
    "Normalization": 2,
    "ReLU": 1,
    "Rescaling": 2,
    "Softmax": 3,
    "Subtract": 1,
    "TrueDivide": 1,
}


def elements(shape: Sequence[int | None]) -> int:
    """Return the number of values per image in a tensor; `shape` has the batch first."""
    return math.prod(size or 1 for size in shape[1:])


def operation_flops(
    operation: Any, inputs: Sequence[Sequence[int | None]], output: Sequence[int | None]
) -> int:
    """Return the operations of a layer per image.

    Args:
        operation: a Keras layer, or an operation in a functional model.
        inputs: the shapes of its inputs, with the batch first.
        output: the shape of its output, with the batch first.
    """
    import keras
    from keras import layers

    count = elements(output)
    if getattr(operation, "ends_block", False):
        # Each weight is used once per position. The products of tokens with tokens are left out:
        # they are few unless there are more tokens than channels.
        positions = count // int(output[-1] or 1)
        return 2 * positions * int(operation.count_params())
    if isinstance(operation, keras.Model):
        return model_flops(operation)
    bias = count if getattr(operation, "use_bias", False) else 0
    if isinstance(operation, layers.SeparableConv2D):
        window, channels = (
            _kernel(operation.depthwise_kernel),
            int(operation.pointwise_kernel.shape[2]),
        )
        positions = count // int(output[-1] or 1)
        return 2 * positions * channels * window + 2 * count * channels + bias
    if isinstance(operation, layers.DepthwiseConv2D):
        return 2 * count * _kernel(operation.kernel) + bias
    if isinstance(operation, layers.Conv1D | layers.Conv2D | layers.Conv3D):
        return 2 * count * math.prod(operation.kernel.shape[:-1]) + bias
    if isinstance(operation, layers.Dense):
        return 2 * count * int(operation.kernel.shape[0]) + bias
    if isinstance(operation, layers.MaxPooling2D | layers.AveragePooling2D):
        return count * math.prod(operation.pool_size)
    if isinstance(operation, layers.GlobalAveragePooling2D | layers.GlobalMaxPooling2D):
        return sum(map(elements, inputs))
    per_element = _ELEMENTWISE.get(type(operation).__name__, 0)
    return count * per_element * max(len(inputs) - 1, 1)


def model_flops(model: keras.Model) -> int:
    """Return the operations of a whole functional model per image."""
    from regraft_core.backbones.cuts import parents_of, topological_order

    total = 0
    for tensor in topological_order(model.outputs[0]):
        shapes = [parent.shape for parent in parents_of(tensor)]
        total += operation_flops(tensor._keras_history.operation, shapes, tensor.shape)
    return total


def _kernel(kernel: Any) -> int:
    """Return the number of spatial positions in a kernel."""
    return math.prod(kernel.shape[:2])
