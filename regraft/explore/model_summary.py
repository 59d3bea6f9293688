"""The layers of a model, its cut points with their costs, and its weights."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from regraft_core.backbones.flops import elements, operation_flops
from regraft_core.runtime.errors import InputError, unknown_name
from regraft_core.runtime.safe_files import replaced_file

if TYPE_CHECKING:
    import keras

FLOAT16_BYTES, FLOAT32_BYTES = 2, 4


@dataclass(frozen=True)
class LayerRow:
    """One layer, in the order of the graph; shape without the batch, FLOPs per image.

    `state` is `trainable` or `frozen`, and empty for a layer without weights.
    """

    name: str
    kind: str
    output: tuple[int | None, ...]
    parameters: int
    trainable_parameters: int
    state: str
    cut_point: bool
    flops: int


@dataclass(frozen=True)
class CutRow:
    """One inner cut point with the costs per image on both sides.

    `cache_bytes` is the size of its activations in the cache, as float16. `kept_bytes` is what
    training above the cut keeps for the gradients: the outputs of all layers there, as float32.
    """

    name: str
    output: tuple[int | None, ...]
    cache_bytes: int
    kept_bytes: int
    parameters_below: int
    parameters_above: int
    flops_below: int
    flops_above: int


@dataclass(frozen=True)
class WeightRow:
    """One variable of a layer, with statistics of its values."""

    name: str
    shape: tuple[int, ...]
    trainable: bool
    mean: float
    std: float
    min: float
    max: float
    zero_fraction: float


def layer_rows(model: keras.Model) -> list[LayerRow]:
    """Return the layers and operations of a functional model, from its input to its output."""
    cuts = {row.name for row in cut_rows(model)}
    return [_row(tensor, cuts, first) for tensor, first in _steps(model)]


def cut_rows(model: keras.Model) -> list[CutRow]:
    """Return the inner cut points, from input to output; none for several inputs or outputs."""
    from regraft_core.backbones.cuts import cut_points

    if len(model.inputs) != 1 or len(model.outputs) != 1:
        return []
    steps = [_row(tensor, set(), first) for tensor, first in _steps(model)]
    sizes = [FLOAT32_BYTES * elements((None, *step.output)) for step in steps]
    rows = []
    for point in cut_points(model)[1:-1]:
        below, above = steps[: point.index + 1], steps[point.index + 1 :]
        rows.append(
            CutRow(
                point.name,
                tuple(point.tensor.shape[1:]),
                FLOAT16_BYTES * elements(point.tensor.shape),
                sum(sizes[point.index + 1 :]),
                sum(step.parameters for step in below),
                sum(step.parameters for step in above),
                sum(step.flops for step in below),
                sum(step.flops for step in above),
            )
        )
    return rows


def feature_map(model: keras.Model) -> tuple[int, int, int] | None:
    """Return the shape (h, w, c) of the last feature map; None if there is none."""
    from regraft_core.backbones.cuts import topological_order

    for tensor in reversed(topological_order(model.outputs[0])):
        if len(tensor.shape) == 4 and None not in tensor.shape[1:]:
            return tuple(tensor.shape[1:])
    return None


def find_layer(model: keras.Model, name: str) -> keras.layers.Layer:
    """Return the layer named `name`.

    Raises:
        InputError: it does not exist; similar names are suggested.
    """
    for layer in model.layers:
        if layer.name == name:
            return layer
    raise unknown_name("layer", name, [layer.name for layer in model.layers])


def weight_rows(layer: keras.layers.Layer) -> list[WeightRow]:
    """Return the variables of a layer with statistics of their values."""
    trainable = {id(variable) for variable in layer.trainable_weights}
    return [
        _weight_row(name, variable, id(variable) in trainable) for name, variable in _named([layer])
    ]


def export_weights(layers: Iterable[keras.layers.Layer], path: str | os.PathLike[str]) -> int:
    """Write the variables of layers to an `.npz` file as `layer/variable`; return their number.

    Raises:
        InputError: the file is not an `.npz` file, or cannot be written.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise InputError(f"expected an .npz file to write weights to, got {path}")
    arrays: dict[str, Any] = {name: np.asarray(variable) for name, variable in _named(layers)}
    try:
        with replaced_file(path) as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    return len(arrays)


def _steps(model: keras.Model) -> Iterator[tuple[Any, bool]]:
    """Yield the tensors of a model in the order of the graph, and whether their layer is new."""
    from regraft_core.backbones.cuts import topological_order

    seen: set[int] = set()
    for tensor in topological_order(model.outputs[0]):
        operation = tensor._keras_history.operation
        yield tensor, id(operation) not in seen
        seen.add(id(operation))


def _row(tensor: Any, cuts: set[str], first: bool) -> LayerRow:
    import keras

    from regraft_core.backbones.cuts import parents_of
    from regraft_core.training.model_files import count_parameters

    operation = tensor._keras_history.operation
    is_layer = isinstance(operation, keras.layers.Layer)
    counted = count_parameters(operation) if is_layer and first else None
    state = ""
    if is_layer and operation.weights:
        state = "trainable" if operation.trainable_weights else "frozen"
    shapes = [parent.shape for parent in parents_of(tensor)]
    return LayerRow(
        operation.name,
        type(operation).__name__,
        tuple(tensor.shape[1:]),
        counted.total if counted else 0,
        counted.trainable if counted else 0,
        state,
        operation.name in cuts,
        operation_flops(operation, shapes, tensor.shape),
    )


def _named(layers: Iterable[keras.layers.Layer]) -> Iterator[tuple[str, Any]]:
    """Yield the variables of layers as `layer/variable`; repeated names are numbered."""
    counts: Counter[str] = Counter()
    for layer in layers:
        for variable in layer.weights:
            name = f"{layer.name}/{variable.name}"
            counts[name] += 1
            yield (name if counts[name] == 1 else f"{name}_{counts[name] - 1}"), variable


def _weight_row(name: str, variable: Any, trainable: bool) -> WeightRow:
    values: NDArray[np.float64] = np.asarray(variable, np.float64)
    return WeightRow(
        name.rpartition("/")[2],
        tuple(values.shape),
        trainable,
        float(values.mean()),
        float(values.std()),
        float(values.min()),
        float(values.max()),
        float((values == 0).mean()),
    )
