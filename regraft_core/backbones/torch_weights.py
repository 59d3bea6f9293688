"""Reads a state dictionary in PyTorch's legacy .pth format, without PyTorch.

The Python libraries that read checkpoints without PyTorch (ptloader, pt-safe-loader) accept only
the newer zip format. A legacy file consists of five pickles (magic number, protocol, machine, the
named tensors, storage keys), then each storage as a count and raw values. Only names, numbers and
tensors can be unpickled; any other global is an error.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from regraft_core.runtime.errors import InputError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGE_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


class _Storage(NamedTuple):
    """A run of values that follows the pickles."""

    key: str
    dtype: np.dtype[Any]
    length: int


class _View(NamedTuple):
    """A tensor as the file describes it: a view of a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _StateDict(dict[str, Any]):
    """Replaces OrderedDict; attributes that the file attaches are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


def _rebuild(storage: _Storage, offset: int, shape: Any, strides: Any, *_: object) -> _View:
    """Replace the function of PyTorch; requires_grad and hooks are dropped."""
    return _View(storage, offset, shape, strides)


class _Unpickler(pickle.Unpickler):
    """Resolves only the globals of a state dictionary."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _StateDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        raise pickle.UnpicklingError(f"global {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, count, _ = pid
        return _Storage(key, dtype, count)


def read_torch_weights(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Return the tensors of a legacy .pth state dictionary by name, in the order of the file.

    Raises:
        InputError: the file is missing, damaged, of another format, or contains anything other
            than tensors of numbers.
    """
    try:
        return _parse(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:
        # A damaged pickle can raise any kind of error.
        raise InputError(
            f"{Path(path).name}: expected tensors in PyTorch's legacy format, got {error}"
        ) from error


def _parse(data: bytes) -> dict[str, NDArray[Any]]:
    file = io.BytesIO(data)
    magic, protocol, machine, views, keys = (_Unpickler(file).load() for _ in range(5))
    if (magic, protocol) != (MAGIC, PROTOCOL):
        raise ValueError("another magic number or protocol")
    if machine["little_endian"] is not True:
        raise ValueError("values that are not little-endian")
    if not all(isinstance(view, _View) for view in views.values()):
        raise ValueError("values that are not tensors")
    storages = {view.storage.key: view.storage for view in views.values()}
    if sorted(keys) != sorted(storages):
        raise ValueError("storages that do not match the tensors")
    values, position = {}, file.tell()
    for key in keys:
        (count,) = struct.unpack_from("<q", data, position)
        if count < 0 or count != storages[key].length:
            raise ValueError(f"storage {key} with {count} values")
        values[key] = np.frombuffer(data, storages[key].dtype, count, position + 8)
        position += 8 + values[key].nbytes
    return {str(name): _tensor(view, values[view.storage.key]) for name, view in views.items()}


def _tensor(view: _View, values: NDArray[Any]) -> NDArray[Any]:
    """Return a view of a storage as a contiguous array."""
    numbers = (view.offset, *view.shape, *view.strides)
    if not all(type(n) is int and n >= 0 for n in numbers) or math.prod(view.shape) > len(values):
        raise ValueError(f"a tensor of shape {view.shape} with strides {view.strides}")
    # Indices instead of a strided view, so that NumPy checks that they are within the storage.
    indices = np.array(view.offset)
    for length, stride in zip(view.shape, view.strides, strict=True):
        indices = indices[..., np.newaxis] + np.arange(length) * stride
    return np.asarray(values[indices])
