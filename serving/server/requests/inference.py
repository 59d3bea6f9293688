"""Predict on a servable: checks of the inputs, the run, the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from serving.server.models.servable import Servable
from serving.server.protocol import tensors
from serving.server.protocol.signature import DEFAULT_SIGNATURE, Signature, TensorSpec
from serving.server.protocol.status import failed_precondition, invalid
from serving.server.protocol.tensors import Typed, type_name


def find_signature(servable: Servable, name: str) -> Signature:
    """Return the signature of a Predict request ("" is the default one).

    Raises:
        ServingError: FAILED_PRECONDITION, as TF Serving's Predict.
    """
    name = name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        raise failed_precondition(f'Serving signature key "{name}" not found.')
    return signature


def predict(
    servable: Servable,
    signature: Signature,
    inputs: Mapping[str, Typed],
    output_filter: Sequence[str] = (),
) -> dict[str, Typed]:
    """Run a signature; return its outputs by alias, or those of the filter.

    Raises:
        ServingError: INVALID_ARGUMENT if the inputs or the filter do not match the signature.
    """
    outputs = filter_outputs(signature, output_filter)
    feeds = check_feeds(servable, signature, inputs)
    encoded = [value for array in feeds.values() if array.dtype == object for value in array.flat]
    values = servable.run(feeds, [outputs[alias].tensor for alias in outputs], encoded)
    return {
        alias: Typed(np.asarray(value), outputs[alias].dtype)
        for alias, value in zip(outputs, values, strict=True)
    }


def check_count(servable: Servable, signature: Signature, names: Sequence[str]) -> None:
    """Reject an incorrect number of inputs before any of them is read."""
    received, expected = sorted(names), sorted(signature.inputs)
    defaults = servable.meta_graph.signature_def[signature.name].defaults
    if len(received) > len(expected) or (len(received) < len(expected) and not defaults):
        extra = sorted(set(received) - set(expected))
        missing = sorted(set(expected) - set(received))
        raise invalid(
            f"input size does not match signature: {len(received)}!={len(expected)} "
            f"len({{{','.join(received)}}}) != len({{{','.join(expected)}}}). "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
        )


def check_names(servable: Servable, signature: Signature, names: Sequence[str]) -> None:
    """Reject inputs without one that the signature requires, or with another."""
    defaults = servable.meta_graph.signature_def[signature.name].defaults
    for alias in signature.inputs:
        if alias not in names and alias not in defaults:
            raise invalid(
                f"Signature input alias: {alias} not found in request and no default value "
                "provided. Inputs expected to be in the set "
                f"{{{','.join(signature.inputs)}}}."
            )
    if unknown := sorted(set(names) - set(signature.inputs)):
        raise invalid(f"Inputs contains invalid name. Used invalid names: {','.join(unknown)}")


def filter_outputs(signature: Signature, output_filter: Sequence[str]) -> dict[str, TensorSpec]:
    """Return the outputs to fetch, all of them if the filter is empty."""
    chosen: dict[str, TensorSpec] = {}
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in "
                f"the set {{{','.join(signature.outputs)}}}."
            )
        if alias in chosen:
            raise invalid(f"duplicate output tensor alias: {alias}")
        chosen[alias] = signature.outputs[alias]
    return chosen or dict(signature.outputs)


def check_feeds(
    servable: Servable, signature: Signature, inputs: Mapping[str, Typed]
) -> dict[str, np.ndarray]:
    """Return the arrays by tensor name, after checking types and shapes."""
    feeds: dict[str, np.ndarray] = {}
    defaults = servable.meta_graph.signature_def[signature.name].defaults
    for position, (alias, spec) in enumerate(signature.inputs.items()):
        value = inputs.get(alias)
        if value is None:
            proto = defaults[alias]
            value = Typed(tensors.from_proto(alias, proto), tf.as_dtype(proto.dtype))
        if value.dtype != spec.dtype:
            raise invalid(
                f"Expects arg[{position}] to be {type_name(spec.dtype)} but "
                f"{type_name(value.dtype)} is provided"
            )
        _check_shape(alias, spec, value.array.shape)
        feeds[spec.tensor] = value.array
    return feeds


def _check_shape(alias: str, spec: TensorSpec, shape: tuple[int, ...]) -> None:
    expected = spec.shape
    if expected is None:
        return
    if len(expected) != len(shape) or any(
        size not in (-1, received) for size, received in zip(expected, shape, strict=True)
    ):
        text = ",".join("?" if size == -1 else str(size) for size in expected)
        raise invalid(f"input {alias}: expected shape [{text}], got {list(shape)}")
