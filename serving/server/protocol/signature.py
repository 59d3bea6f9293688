"""Signatures of a model as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a signature.

    A dimension of unknown size is -1; `shape` is None if the rank is unknown.
    """

    tensor: str
    dtype: tf.DType
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a signature by alias, sorted."""

    name: str
    method: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


def read_signature(name: str, definition: Any) -> Signature:
    """Return the signature of a `SignatureDef`."""

    def specs(infos: Any) -> dict[str, TensorSpec]:
        return {alias: _tensor_spec(infos[alias]) for alias in sorted(infos)}

    return Signature(
        name, definition.method_name, specs(definition.inputs), specs(definition.outputs)
    )


def _tensor_spec(info: Any) -> TensorSpec:
    shape = info.tensor_shape
    dims = None if shape.unknown_rank else tuple(int(d.size) for d in shape.dim)
    return TensorSpec(info.name, tf.as_dtype(info.dtype), dims)
