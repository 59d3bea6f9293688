"""The signatures and variables of a SavedModel, read from its files; no code of it is run."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft_core.runtime.errors import InputError

FILE = "saved_model.pb"
VARIABLES = "variables/variables"


@dataclass(frozen=True)
class Tensor:
    """One input or output of a signature; unknown sizes are None."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """One signature that a server offers."""

    name: str
    inputs: list[Tensor]
    outputs: list[Tensor]


@dataclass(frozen=True)
class Variable:
    """One stored variable."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of its values."""
        return math.prod(self.shape)


def read_signatures(folder: str | os.PathLike[str]) -> list[Signature]:
    """Return the signatures of the tag `serve`, sorted by name.

    Raises:
        InputError: `folder` has no valid SavedModel.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    message = saved_model_pb2.SavedModel()
    try:
        message.ParseFromString((Path(folder) / FILE).read_bytes())
    except (OSError, DecodeError) as error:
        raise InputError(f"expected a SavedModel in {folder}: {error}") from error
    graphs = [graph for graph in message.meta_graphs if "serve" in graph.meta_info_def.tags]
    found = graphs[0].signature_def if graphs else {}
    return [
        Signature(name, _tensors(found[name].inputs), _tensors(found[name].outputs))
        for name in sorted(found)
        if not name.startswith("__")
    ]


def read_variables(folder: str | os.PathLike[str]) -> list[Variable]:
    """Return the variables of a SavedModel, sorted by name; their values are not read.

    Raises:
        InputError: they cannot be read.
    """
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(Path(folder) / VARIABLES))
    except (ValueError, tf.errors.OpError) as error:
        raise InputError(f"cannot read the variables of {folder}: {error}") from error
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    return [
        Variable(name, dtypes[name].name, tuple(shapes[name]))
        for name in sorted(shapes)
        if dtypes[name] != tf.string
    ]


def _tensors(entries: Mapping[str, Any]) -> list[Tensor]:
    import tensorflow as tf

    found = []
    for name in sorted(entries):
        info = entries[name]
        sizes = tuple(None if dim.size < 0 else int(dim.size) for dim in info.tensor_shape.dim)
        shape = None if info.tensor_shape.unknown_rank else sizes
        found.append(Tensor(name, tf.dtypes.as_dtype(info.dtype).name, shape))
    return found
