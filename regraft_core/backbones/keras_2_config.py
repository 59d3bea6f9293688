"""Translates the configuration of a network that Keras 2 has written for Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

MODELS = ("Functional", "Sequential", "Model")
# Arguments of the base class that these layers do not use.
_OF_THEIR_BASE = {
    "DepthwiseConv2D": ("groups",),
    "SeparableConv2D": (
        "groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint",
    ),
}  # fmt: skip
Objects = Callable[[Any], Iterator[dict[str, Any]]]


def in_keras_3(config: dict[str, Any], objects: Objects) -> dict[str, Any]:
    """Return a configuration without what Keras 3 does not accept.

    Keras 2 allowed slashes in names, wrote axes as lists and the kind of random generators, gave
    convolutions arguments of their base class, and counted the calls of a nested model
    from 1.

    Args:
        config: of a model in a `.h5` file.
        objects: yields all objects with a class in a configuration.
    """
    named = [one.get("config") for one in objects(config)]
    names = {str(one["name"]) for one in named if isinstance(one, dict) and "name" in one}
    changed: dict[str, Any] = _without_slashes(config, names)
    for one in objects(changed):
        kind, values = one["class_name"], one.get("config")
        if not isinstance(values, dict):
            continue
        values.pop("rng_type", None)
        axis = values.get("axis")
        if kind in _OF_THEIR_BASE:
            for name in _OF_THEIR_BASE[kind]:
                values.pop(name, None)
        elif kind == "BatchNormalization" and isinstance(axis, list) and len(axis) == 1:
            values["axis"] = axis[0]
        elif kind in MODELS and isinstance(values.get("layers"), list):
            _count_calls_from_zero(values)
    return changed


def _without_slashes(value: Any, names: set[str]) -> Any:
    """Return a configuration in which no name of a layer has a slash."""
    if isinstance(value, list):
        return [_without_slashes(one, names) for one in value]
    if isinstance(value, dict):
        return {key: _without_slashes(one, names) for key, one in value.items()}
    return value.replace("/", "_") if isinstance(value, str) and value in names else value


def _count_calls_from_zero(values: dict[str, Any]) -> None:
    """Change the references to nested models that count their construction as a call."""
    layers = [one for one in values["layers"] if isinstance(one, dict)]
    nested = {one.get("name"): one for one in layers if one.get("class_name") in MODELS}
    inputs = [one for layer in layers for one in _references(layer.get("inbound_nodes"))]
    later = {name for name, call, *_ in inputs if name in nested
             and call >= len(nested[name].get("inbound_nodes") or ())}  # fmt: skip
    # Keras 3 itself does so for the outputs that are functional models.
    outputs = [one for one in _references(values.get("output_layers"))
               if one[0] in nested and nested[one[0]]["class_name"] == "Sequential"]  # fmt: skip
    later |= {name for name, call, *_ in outputs
              if call >= len(nested[name].get("inbound_nodes") or ())}  # fmt: skip
    for one in (*inputs, *outputs):
        if one[0] in later:
            one[1] -= 1


def _references(value: Any) -> Iterator[list[Any]]:
    """Yield the references `[layer, call, tensor, ...]` in the inputs or outputs of a model."""
    if not isinstance(value, list):
        return
    if len(value) > 2 and isinstance(value[0], str) and isinstance(value[1], int):
        yield value
        return
    for one in value:
        yield from _references(one)
