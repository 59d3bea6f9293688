"""Cutting a backbone in two and grafting a head on it, by its graph and never by layer names.

A *cut point* is a layer through which every path from input to output goes. At a cut point a model
splits into a bottom and a top that share its weights, and `top(bottom(x))` equals `model(x)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from regraft_core.runtime.errors import InputError, unknown_name


@dataclass(frozen=True)
class CutPoint:
    """A layer through which every path goes: its name, output tensor and place in the graph."""

    name: str
    tensor: Any
    place: int


def cut_points(model: keras.Model) -> list[CutPoint]:
    """Return the cut points of a functional model, from its input to its output, both included.

    In a topological order of the graph a layer is a cut point when no edge jumps over it.
    """
    order = topological_order(model.outputs[0])
    place = {_node(tensor): index for index, tensor in enumerate(order)}
    farthest_child = [0] * len(order)
    for index, tensor in enumerate(order):
        for parent in parents_of(tensor):
            farthest_child[place[_node(parent)]] = index  # children come in rising order
    points, reach = [], 0
    for index, tensor in enumerate(order):
        if reach <= index:
            points.append(CutPoint(tensor._keras_history.operation.name, tensor, index))
        reach = max(reach, farthest_child[index])
    return points


def find_cut(model: keras.Model, cut: str) -> CutPoint:
    """Return the inner cut point that `cut` names.

    Args:
        model: a functional model with one input and one output.
        cut: the name of a layer, `fraction:S` for the cut point that leaves at most the share S of
            the model's parameters above it, or `top:N` for the N-th cut point from the output.

    Raises:
        InputError: no such layer, or it is no cut point, or nothing would lie on one side of it.
    """
    inner = cut_points(model)[1:-1]
    kind, _, number = cut.partition(":")
    if kind == "top" and number:
        return _nth_from_top(inner, number)
    if kind == "share" and number:
        return _by_share(model, inner, number)
    for point in inner:
        if point.name == cut:
            return point
    if cut in (model.layers[0].name, model.layers[-1].name):
        raise InputError(f"cut {cut!r} is an end of the backbone: nothing would lie on one side")
    if any(layer.name == cut for layer in model.layers):
        index = [layer.name for layer in model.layers].index(cut)
        names = {point.name for point in inner}
        after = [layer.name for layer in model.layers[index:] if layer.name in names]
        hint = f"; the next one above it is {after[0]!r}" if after else ""
        raise InputError(f"cut {cut!r} is not a point that every path goes through{hint}")
    raise unknown_name("cut", cut, [point.name for point in inner])


def _nth_from_top(inner: list[CutPoint], number: str) -> CutPoint:
    if not number.isdigit() or not 1 <= int(number) <= len(inner):
        raise InputError(f"cut: expected top:N with N from 1 to {len(inner)}, got top:{number}")
    return inner[-int(number)]


def _by_share(model: keras.Model, inner: list[CutPoint], number: str) -> CutPoint:
    try:
        share = float(number)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise InputError(f"cut: expected fraction:S with S between 0 and 1, got fraction:{number}")
    total = model.count_params()
    for point in inner:
        if keras.Model(point.tensor, model.output).count_params() <= share * total:
            return point
    return inner[-1]


def split(model: keras.Model, cut: str) -> tuple[keras.Model, keras.Model]:
    """Split a functional model at a cut point into (bottom, top), on shared weights.

    Raises:
        InputError: as `find_cut`.
    """
    point = find_cut(model, cut)
    return keras.Model(model.input, point.tensor), keras.Model(point.tensor, model.output)


def join(part: keras.Model, layers: Sequence[keras.layers.Layer]) -> keras.Model:
    """Return one model from the input of `part` (a backbone, or its top) through `layers`.

    Layers are shared, not copied, and called one by one, so that the joined graph is flat.
    """
    tensor = part.output
    for layer in layers:
        tensor = layer(tensor)
    return keras.Model(part.input, tensor)


def freeze(model: keras.Model) -> None:
    """Freeze all layers of `model`.

    In Keras a frozen BatchNormalization also runs in inference mode, so its moving statistics
    stand still.
    """
    for layer in model.layers:
        layer.trainable = False


def topological_order(output: Any) -> list[Any]:
    """Return the tensors that lead to `output`, parents before children, without recursion."""
    order: list[Any] = []
    seen: set[tuple[int, int]] = set()
    stack = [(output, False)]
    while stack:
        tensor, parents_done = stack.pop()
        if parents_done:
            order.append(tensor)
        elif _node(tensor) not in seen:
            seen.add(_node(tensor))
            stack.append((tensor, True))
            stack.extend((parent, False) for parent in parents_of(tensor))
    return order


def _node(tensor: Any) -> tuple[int, int]:
    history = tensor._keras_history
    return id(history.operation), history.node_index


def parents_of(tensor: Any) -> list[Any]:
    """Return the tensors that the operation which gives `tensor` takes."""
    history = tensor._keras_history
    return list(history.operation._inbound_nodes[history.node_index].input_tensors)
