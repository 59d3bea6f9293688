"""Splits a backbone in two and adds a head to it, based on its graph and not on layer names.

A *cut point* is a layer through which every path from input to output goes. At a cut point a model
splits into a bottom and a top that share its weights, and `top(bottom(x))` equals `model(x)`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from regraft_core.runtime.errors import InputError, unknown_name

# Fewer block ends than the minimum are completed, more than the maximum thinned out.
MIN_LEVELS, MAX_LEVELS = 3, 20


@dataclass(frozen=True)
class CutPoint:
    """A layer through which every path goes: name, output tensor, index in topological order."""

    name: str
    tensor: Any
    index: int


def cut_points(model: keras.Model) -> list[CutPoint]:
    """Return the cut points of a functional model, from its input to its output, both included.

    In a topological order of the graph, a layer is a cut point if no edge passes over it. A layer
    that is called several times is none, because its name does not say which call, and its weights
    are on one side of a cut.
    """
    order = topological_order(model.outputs[0])
    index_of = {_node(tensor): index for index, tensor in enumerate(order)}
    farthest_child = [0] * len(order)
    for index, tensor in enumerate(order):
        for parent in parents_of(tensor):
            farthest_child[index_of[_node(parent)]] = index  # children have increasing indices
    calls = Counter(id(_operation(tensor)) for tensor in order)
    last_call = {id(_operation(tensor)): index for index, tensor in enumerate(order)
                 if not _is_weightless(tensor)}  # fmt: skip
    points, reach = [], 0
    for index, tensor in enumerate(order):
        operation = _operation(tensor)
        reach = max(reach, last_call.get(id(operation), 0))
        if reach <= index and calls[id(operation)] == 1:
            points.append(CutPoint(operation.name, tensor, index))
        reach = max(reach, farthest_child[index])
    return points


def block_ends(model: keras.Model, limit: int = MAX_LEVELS) -> list[CutPoint]:
    """Return the feature maps at the ends of blocks, the model's output last.

    A block ends at a cut point that several layers read (a residual starts), that joins paths,
    that is a whole block (its layer says so by `ends_block`), or that a layer without weights has
    made smaller (pooling). Layers without weights that follow,
    such as an activation, belong to the block. If these are few, the last cut point of each size
    is an end, too; if they are more than `limit`, some between are left out, evenly.
    """
    children = _children(model)
    maps = [point for point in cut_points(model)[1:] if len(point.tensor.shape) == 4]
    ends = [point for point in maps if _ends_block(point, children)]
    ends = [point for point in ends if not _goes_on(point, maps, children)]
    if len(ends) < MIN_LEVELS:
        sizes = {point.tensor.shape[1:3]: point for point in maps}
        ends = sorted({p.name: p for p in (*ends, *sizes.values())}.values(), key=lambda p: p.index)
    if maps and (not ends or ends[-1].name != maps[-1].name):
        ends.append(maps[-1])
    if len(ends) > limit:
        step = (len(ends) - 1) / (limit - 1)
        ends = [ends[round(k * step)] for k in range(limit)]
    return ends


def _children(model: keras.Model) -> dict[str, list[Any]]:
    """Return the tensors computed directly from each layer's output, by the layer's name."""
    found: dict[str, list[Any]] = {}
    for tensor in topological_order(model.outputs[0]):
        for parent in parents_of(tensor):
            found.setdefault(_operation(parent).name, []).append(tensor)
    return found


def _ends_block(point: CutPoint, children: dict[str, list[Any]]) -> bool:
    parents = parents_of(point.tensor)
    shrunk = min(p.shape[1] or 0 for p in parents) > (point.tensor.shape[1] or 0)
    weightless = _is_weightless(point.tensor)
    several = len(children.get(point.name, [])) > 1
    is_block = getattr(_operation(point.tensor), "ends_block", False)
    return is_block or several or len(parents) > 1 or (shrunk and weightless)


def _goes_on(point: CutPoint, maps: Sequence[CutPoint], children: dict[str, list[Any]]) -> bool:
    """Return whether a cut point follows that has no weights and the same shape."""
    after = children.get(point.name, [])
    if len(after) != 1 or after[0].shape != point.tensor.shape:
        return False
    name = _operation(after[0]).name
    return _is_weightless(after[0]) and any(one.name == name for one in maps)


def _is_weightless(tensor: Any) -> bool:
    """Return whether the operation that computes a tensor has no weights."""
    return not getattr(_operation(tensor), "weights", ())


def has_cut(model: keras.Model) -> bool:
    """Return whether the model can be cut anywhere between its input and its output."""
    return len(cut_points(model)) > 2


def find_cut(model: keras.Model, cut: str) -> CutPoint:
    """Return the inner cut point that `cut` names.

    Args:
        model: a functional model with one input and one output.
        cut: the name of a layer, `fraction:S` for the first cut point with at most the fraction S
            of the model's parameters above it, or `top:N` for the N-th cut point from the output.

    Raises:
        InputError: there is no such layer or no cut point at all, or it is not one or the first or
            last layer.
    """
    inner = cut_points(model)[1:-1]
    if not inner:
        raise InputError(
            "cut: no layer of the backbone has all paths through it, so only its head can be "
            "trained; use --strategies head"
        )
    kind, _, number = cut.partition(":")
    if kind == "top" and number:
        return _nth_from_top(inner, number)
    if kind == "fraction" and number:
        return _by_fraction(model, inner, number)
    for point in inner:
        if point.name == cut:
            return point
    if cut in (model.layers[0].name, model.layers[-1].name):
        raise InputError(f"cut {cut!r} is the first or last layer; choose one in between")
    if any(layer.name == cut for layer in model.layers):
        index = [layer.name for layer in model.layers].index(cut)
        names = {point.name for point in inner}
        after = [layer.name for layer in model.layers[index:] if layer.name in names]
        hint = f"; the next one above it is {after[0]!r}" if after else ""
        raise InputError(f"cut {cut!r} is not a point that every path goes through{hint}")
    raise unknown_name("cut", cut, [point.name for point in inner])


def _nth_from_top(inner: list[CutPoint], number: str) -> CutPoint:
    if not number.isdecimal() or not 1 <= int(number) <= len(inner):
        raise InputError(f"cut: expected top:N with N from 1 to {len(inner)}, got top:{number}")
    return inner[-int(number)]


def _by_fraction(model: keras.Model, inner: list[CutPoint], number: str) -> CutPoint:
    try:
        fraction = float(number)
    except ValueError:
        fraction = -1.0
    if not 0 < fraction < 1:
        raise InputError(f"cut: expected fraction:S with S between 0 and 1, got fraction:{number}")
    total = model.count_params()
    for point in inner:
        if keras.Model(point.tensor, model.output).count_params() <= fraction * total:
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

    Layers are shared, not copied, and called separately, so that the joined graph is flat.
    """
    tensor = part.output
    for layer in layers:
        tensor = layer(tensor)
    return keras.Model(part.input, tensor)


def freeze(model: keras.Model) -> None:
    """Freeze all layers of `model`.

    In Keras a frozen BatchNormalization also runs in inference mode, so it keeps its statistics.
    """
    for layer in model.layers:
        layer.trainable = False


def topological_order(output: Any) -> list[Any]:
    """Return the tensors from which `output` is computed, parents before children."""
    order: list[Any] = []
    visited: set[tuple[int, int]] = set()
    stack = [(output, False)]
    while stack:
        tensor, parents_done = stack.pop()
        if parents_done:
            order.append(tensor)
        elif _node(tensor) not in visited:
            visited.add(_node(tensor))
            stack.append((tensor, True))
            stack.extend((parent, False) for parent in parents_of(tensor))
    return order


def _operation(tensor: Any) -> Any:
    """Return the layer or operation that computes a tensor."""
    return tensor._keras_history.operation


def _node(tensor: Any) -> tuple[int, int]:
    history = tensor._keras_history
    return id(history.operation), history.node_index


def parents_of(tensor: Any) -> list[Any]:
    """Return the inputs of the operation that returns `tensor`."""
    history = tensor._keras_history
    return list(history.operation._inbound_nodes[history.node_index].input_tensors)
