"""A network as one flat graph of layers with names of their own, up to its last feature map."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import keras

from regraft_core.backbones.cuts import parents_of
from regraft_core.backbones.own_config import is_augmentation
from regraft_core.runtime.errors import InputError

_INPUT, _GRAY, _OUTPUT = "image", "gray", "feature_map"
# The layers of a head have these names.
_HEAD_PREFIX, _HEAD_NAMES = "head_", ("logits", "pooled")
_LONGEST_NAME, _NOT_IN_SCOPES = 80, re.compile(r"[^A-Za-z0-9_.-]")


def flat_network(model: keras.Model, image_px: int) -> keras.Model:
    """Return a copy of a model for an image size, in which nested models are part of the graph.

    It has no layers that augment images, and no layer is forced to work as in training. A network
    of gray images gets the brightness of color images.

    Args:
        model: a functional or sequential model with one input and one output.
        image_px: side of the images.

    Raises:
        InputError: a nested model is a subclass of `keras.Model`, or has several inputs.
    """
    inputs = keras.Input((image_px, image_px, 3), name=_INPUT)
    tensor = inputs
    if model.inputs and model.inputs[0].shape[-1] == 1:
        gray = keras.ops.image.rgb_to_grayscale(inputs)
        gray._keras_history.operation.name = _GRAY
        tensor = gray
    (output,) = keras.tree.flatten(_Flattening().call(model, tensor))
    shared = keras.Model(inputs, output, name="backbone")
    # A copy, because each layer now has two inputs: its own and the new one.
    flat = keras.Model.from_config(shared.get_config())
    for layer in flat.layers:
        layer.set_weights(shared.get_layer(layer.name).get_weights())
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes from a copy of its weights
    return flat


class _Flattening:
    """Calls the layers of a model and of nested ones, and gives each layer a name of its own."""

    def __init__(self) -> None:
        self._names = {_INPUT, _GRAY, _OUTPUT, *_HEAD_NAMES}
        self._called: dict[int, Any] = {}

    def call(self, model: keras.Model, inputs: Any) -> Any:
        """Apply a model to a tensor."""
        graph = getattr(model, "_functional", model)
        if not hasattr(graph, "_run_through_graph"):
            raise InputError(
                f"backbone: the nested model {model.name} is a subclass of keras.Model, whose "
                "graph is not known; build it of layers, or export the network as a SavedModel"
            )
        if len(graph.inputs) != 1:
            raise InputError(f"backbone: {model.name} has {len(graph.inputs)} inputs, expected one")
        return graph._run_through_graph(
            [inputs], operation_fn=lambda operation: self._callable(model, operation)
        )

    def _callable(self, model: keras.Model, operation: Any) -> Callable[..., Any]:
        if isinstance(operation, keras.Model):
            return lambda tensor, **_: self.call(operation, tensor)
        if is_augmentation(type(operation).__name__):
            return lambda tensor, **_: tensor
        is_layer = isinstance(operation, keras.layers.Layer)
        if id(operation) in self._called and is_layer and not operation.weights:
            # Without weights, a second call can be a layer that has a name of its own.
            operation = type(operation).from_config(operation.get_config())
        if id(operation) not in self._called:
            operation.name = self._free_name(model, operation.name)
            self._called[id(operation)] = operation
        return lambda *given, training=None, **others: operation(*given, **others)

    def _free_name(self, model: keras.Model, name: str) -> str:
        own = _scope_name(name)
        numbered = (f"own_{own}_{number}" for number in itertools.count(2))
        names = itertools.chain([own, _scope_name(f"{model.name}_{name}")], numbered)
        free = next(one for one in names
                    if one not in self._names and not one.startswith(_HEAD_PREFIX))  # fmt: skip
        self._names.add(free)
        return free


def _scope_name(name: str) -> str:
    """Return a name that a scope of a TensorFlow graph can have."""
    scope = _NOT_IN_SCOPES.sub("_", name)[:_LONGEST_NAME]
    return scope if scope[:1].isalnum() else f"own{scope}"


def up_to_feature_map(model: keras.Model) -> keras.Model:
    """Return a model up to its last feature map, or to the vector or tokens before its head.

    A last dense layer or 1 x 1 convolution of a vector is the head, and what pools before it too.
    A vector or tokens are returned as a map [n, 1, 1, c] or [n, 1, tokens, c].

    Raises:
        InputError: its output is of another kind.
    """
    tensor = model.output
    if not 2 <= len(tensor.shape) <= 4 or not keras.backend.is_float_dtype(tensor.dtype):
        raise InputError(
            "backbone: expected an output [n, h, w, c], [n, tokens, c] or [n, c] of floats, got "
            f"{list(tensor.shape)} of {tensor.dtype}"
        )
    if _is_vector(tensor):
        tensor = vector = _before_classifier(tensor)
        while not _is_map(tensor) and _is_plain(tensor):
            tensor = parents_of(tensor)[0]
        tensor = tensor if _is_map(tensor) else vector
    if len(tensor.shape) < 4:
        *tokens, width = tensor.shape[1:]
        shape = (1, tokens[0] if tokens else 1, width)
        tensor = keras.layers.Reshape(shape, name=_OUTPUT)(tensor)
    elif len(tensor._keras_history.operation._inbound_nodes) > 1:
        # The name of a layer that is called several times does not say which output this is.
        tensor = keras.layers.Identity(name=_OUTPUT)(tensor)
    return keras.Model(model.input, tensor, name="backbone")


def _before_classifier(tensor: Any) -> Any:
    """Return the input of the last layer with weights, if it is the head."""
    current = tensor
    while _is_vector(current) and len(parents_of(current)) == 1:
        operation, parent = current._keras_history.operation, parents_of(current)[0]
        is_convolution = isinstance(operation, keras.layers.Conv2D) and _is_vector(parent)
        if isinstance(operation, keras.layers.Dense) or is_convolution:
            return parent
        if getattr(operation, "weights", ()):
            break
        current = parent
    return tensor


def _is_vector(tensor: Any) -> bool:
    """Return whether a tensor is [n, c] or [n, 1, 1, c]."""
    return len(tensor.shape) == 2 or tuple(tensor.shape[1:-1]) == (1, 1)


def _is_map(tensor: Any) -> bool:
    return len(tensor.shape) == 4 and not _is_vector(tensor)


def _is_plain(tensor: Any) -> bool:
    """Return whether a tensor is computed without weights from one other."""
    operation = tensor._keras_history.operation
    return len(parents_of(tensor)) == 1 and not getattr(operation, "weights", ())
