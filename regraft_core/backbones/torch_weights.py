"""Reads a state dictionary from PyTorch's legacy .pth format, without PyTorch and without trust.

The format is five pickles (magic number, protocol, machine, the named tensors, storage keys) and
then each storage as a count and raw values. Nothing but names, numbers and tensors is unpickled:
the opcodes and globals that such a file needs are listed here, and any other ends in an error.
"""

from __future__ import annotations

import math
import os
import pickle
import pickletools
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from regraft_core.runtime.errors import InputError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGE_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("<i1"),
    "ByteStorage": np.dtype("<u1"),
    "BoolStorage": np.dtype("?"),
}
OPCODE_NAMES = """
PROTO STOP MARK GLOBAL REDUCE BUILD BINPERSID BINPUT LONG_BINPUT BINGET LONG_BINGET
EMPTY_DICT SETITEM SETITEMS EMPTY_LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
BINUNICODE BININT BININT1 BININT2 LONG1 BINFLOAT NONE NEWTRUE NEWFALSE
"""
OPCODES = frozenset(OPCODE_NAMES.split())


@dataclass(frozen=True)
class _Storage:
    """A named run of values that follows the pickles."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _View:
    """A tensor as the file describes it: a window on a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Names(dict[str, Any]):
    """Stands for OrderedDict; the attributes that a file attaches to it are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


def _view(storage: object, offset: object, shape: object, strides: object, *_: object) -> _View:
    """Stand for torch._utils._rebuild_tensor_v2; the last two arguments (gradient, hooks) go."""
    sizes = (shape, strides)
    if not isinstance(storage, _Storage) or not all(isinstance(s, tuple) for s in sizes):
        raise pickle.UnpicklingError("a tensor without storage, shape or strides")
    numbers = (offset, *shape, *strides)  # type: ignore[misc]
    if not all(type(n) is int and n >= 0 for n in numbers) or len(shape) != len(strides):  # type: ignore[arg-type]
        raise pickle.UnpicklingError(f"a tensor of shape {shape} with strides {strides}")
    return _View(storage, offset, shape, strides)  # type: ignore[arg-type]


class _Unpickler(pickle.Unpickler):
    """Knows the three kinds of globals that a state dictionary needs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Names
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        raise pickle.UnpicklingError(f"global {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", np.dtype() as dtype, str(key), str(), int(count), None) if count >= 0:
                return _Storage(key, dtype, count)
        raise pickle.UnpicklingError(f"storage {str(pid)[:80]}")


def _next_pickle(file: BinaryIO) -> Any:
    """Read one pickle after looking at all its opcodes; the file is left behind it."""
    start = file.tell()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name not in OPCODES:
            raise pickle.UnpicklingError(f"opcode {opcode.name}")
        if opcode.name == "LONG_BINPUT" and (argument is None or argument > count):
            raise pickle.UnpicklingError(f"memo index {argument}")
    file.seek(start)
    return _Unpickler(file).load()


def _read_storage(file: BinaryIO, storage: _Storage) -> np.ndarray[Any, Any]:
    (count,) = struct.unpack("<q", file.read(8))
    left = os.fstat(file.fileno()).st_size - file.tell()
    if count != storage.count or count * storage.dtype.itemsize > left:
        raise ValueError(f"storage {storage.key}: expected {storage.count} values, got {count}")
    return np.frombuffer(file.read(count * storage.dtype.itemsize), storage.dtype)


def _tensor(view: _View, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the window as a contiguous array, after checking that it stays in its storage."""
    last = sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
    size = math.prod(view.shape)
    if size > len(values) or (size and view.offset + last >= len(values)):
        raise ValueError(f"a tensor of shape {view.shape} leaves its storage of {len(values)}")
    if not size:
        return np.zeros(view.shape, values.dtype)
    strides = [s * values.dtype.itemsize for s in view.strides]
    window = np.lib.stride_tricks.as_strided(
        values[view.offset :], view.shape, strides, writeable=False
    )
    return np.ascontiguousarray(window).reshape(view.shape)


def _read(file: BinaryIO) -> dict[str, np.ndarray[Any, Any]]:
    if _next_pickle(file) != MAGIC or _next_pickle(file) != PROTOCOL:
        raise ValueError("another magic number or protocol")
    machine = _next_pickle(file)
    if not isinstance(machine, Mapping) or machine.get("little_endian") is not True:
        raise ValueError("values that are not little-endian")
    views = _next_pickle(file)
    keys = _next_pickle(file)
    if not isinstance(views, Mapping) or not all(isinstance(v, _View) for v in views.values()):
        raise ValueError("something else than named tensors")
    storages = {v.storage.key: v.storage for v in views.values()}
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise ValueError("storages that do not fit the tensors")
    values = {key: _read_storage(file, storages[key]) for key in keys}
    return {str(name): _tensor(v, values[v.storage.key]) for name, v in views.items()}


def read_torch_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the tensors of a legacy .pth state dictionary by name, in the file's order.

    Raises:
        InputError: the file is missing, damaged, of another format, or holds anything else than
            tensors of numbers.
    """
    try:
        with open(path, "rb") as file:
            return _read(file)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:
        # A damaged pickle can raise nearly anything; whatever it is, the file is not readable.
        raise InputError(
            f"{Path(path).name}: expected tensors in PyTorch's legacy format, found {error}"
        ) from error
