"""What a request does with a servable, whatever protocol brought it: checks, run, results."""

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
    """Return the signature that a Predict asks for ("" is the default one).

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
    """Run a signature; return its outputs (or those of the filter) by alias.

    Raises:
        ServingError: INVALID_ARGUMENT where inputs or filter do not fit the signature.
    """
    outputs = chosen_outputs(signature, output_filter)
    feeds = checked_feeds(servable, signature, inputs)
    values = servable.run(feeds, [outputs[alias].tensor for alias in outputs])
    return {
        alias: Typed(np.asarray(value), outputs[alias].dtype)
        for alias, value in zip(outputs, values, strict=True)
    }


def check_count(servable: Servable, signature: Signature, names: Sequence[str]) -> None:
    """Refuse a wrong number of inputs, before any of them is read."""
    given, wanted = sorted(names), sorted(signature.inputs)
    defaults = servable.meta_graph.signature_def[signature.name].defaults
    if len(given) > len(wanted) or (len(given) < len(wanted) and not defaults):
        extra, missing = sorted(set(given) - set(wanted)), sorted(set(wanted) - set(given))
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(wanted)} "
            f"len({{{','.join(given)}}}) != len({{{','.join(wanted)}}}). "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
        )


def check_names(servable: Servable, signature: Signature, names: Sequence[str]) -> None:
    """Refuse inputs that leave one of the signature's out that has no default."""
    defaults = servable.meta_graph.signature_def[signature.name].defaults
    for alias in signature.inputs:
        if alias not in names and alias not in defaults:
            raise invalid(
                f"Signature input alias: {alias} not found in request and no default value "
                "provided. Inputs expected to be in the set "
                f"{{{','.join(signature.inputs)}}}."
            )


def chosen_outputs(signature: Signature, output_filter: Sequence[str]) -> dict[str, TensorSpec]:
    """Return the outputs to fetch, all of them where the filter is empty."""
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


def checked_feeds(
    servable: Servable, signature: Signature, inputs: Mapping[str, Typed]
) -> dict[str, np.ndarray]:
    """Return the arrays by tensor name, after checks of type and shape."""
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
    wanted = spec.shape
    if wanted is None:
        return
    fits = len(wanted) == len(shape) and all(
        w in (-1, got) for w, got in zip(wanted, shape, strict=True)
    )
    if not fits:
        text = ",".join("?" if size == -1 else str(size) for size in wanted)
        raise invalid(f"input {alias}: expected shape [{text}], got {list(shape)}")
