"""The reader of legacy .pth files: exact tensors, and an error for anything else."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regraft_core.backbones.torch_weights import MAGIC, PROTOCOL, read_torch_weights
from regraft_core.runtime.errors import InputError

MACHINE = {"protocol_version": PROTOCOL, "little_endian": True}


class Storage:
    def __init__(self, key: str, values: np.ndarray) -> None:
        self.key, self.values = key, values


class Tensor:
    def __init__(self, storage: Storage, offset: Any, shape: Any, strides: Any) -> None:
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        if not isinstance(value, Storage):
            return None
        kind = sys.modules["torch"].FloatStorage
        return ("storage", kind, value.key, "cpu", len(value.values), None)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a writer of legacy files; PyTorch's globals exist while a test runs."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})  # type: ignore[attr-defined]

    def rebuild(*arguments: object) -> None:
        raise AssertionError("the reader must use its own function")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    torch._utils = utils  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    def file_of(
        state: object, *storages: Storage, machine: object = None, magic: int = MAGIC
    ) -> Path:
        stream = io.BytesIO()
        keys = [storage.key for storage in storages]
        for part in (magic, PROTOCOL, machine or MACHINE, state, keys):
            Pickler(stream, 2).dump(part)
        for storage in storages:
            stream.write(struct.pack("<q", len(storage.values)) + storage.values.tobytes())
        path = tmp_path / "weights.pth"
        path.write_bytes(stream.getvalue())
        return path

    return file_of


def floats(count: int, key: str = "7") -> Storage:
    return Storage(key, np.arange(count, dtype="<f4"))


def test_reads_offsets_and_strides(write: Callable[..., Path]) -> None:
    one, two = floats(12), floats(3, "8")
    state = OrderedDict(
        plain=Tensor(one, 0, (3, 4), (4, 1)),
        transposed=Tensor(one, 0, (4, 3), (1, 4)),
        shifted=Tensor(one, 5, (2, 2), (3, 2)),
        scalar=Tensor(two, 2, (), ()),
        empty=Tensor(two, 0, (0, 4), (4, 1)),
    )
    tensors = read_torch_weights(write(state, one, two))
    values = np.arange(12, dtype=np.float32)
    assert list(tensors) == ["plain", "transposed", "shifted", "scalar", "empty"]
    np.testing.assert_array_equal(tensors["plain"], values.reshape(3, 4))
    np.testing.assert_array_equal(tensors["transposed"], values.reshape(3, 4).T)
    np.testing.assert_array_equal(tensors["shifted"], [[5, 7], [8, 10]])
    assert tensors["scalar"].shape == () and tensors["scalar"] == 2
    assert tensors["empty"].shape == (0, 4)
    assert all(t.flags.c_contiguous and t.dtype == np.float32 for t in tensors.values())


def test_attributes_of_a_state_dictionary_are_dropped(write: Callable[..., Path]) -> None:
    storage = floats(2)
    state = OrderedDict(a=Tensor(storage, 0, (2,), (1,)))
    state._metadata = {"version": 1}  # type: ignore[attr-defined]
    assert list(read_torch_weights(write(state, storage))) == ["a"]


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (13,), (1,)),
        (1, (12,), (1,)),
        (0, (2, 2), (12, 1)),
        (0, (4, 4), (0, 0)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 3), (1,)),
        (0, (2.0,), (1,)),
        ("0", (2,), (1,)),
        (0, (10**12,), (0,)),
    ],
)
def test_a_tensor_outside_its_storage_is_an_error(
    write: Callable[..., Path], offset: Any, shape: Any, strides: Any
) -> None:
    storage = floats(12)
    path = write(OrderedDict(a=Tensor(storage, offset, shape, strides)), storage)
    with pytest.raises(InputError, match=r"weights\.pth: expected tensors"):
        read_torch_weights(path)


class Attack:
    """Runs a function in any reader that resolves all globals."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize(
    "state",
    [
        {"a": Attack(os.mkdir, "attacked")},
        {"a": Attack(eval, "__import__('os').mkdir('attacked')")},
        {"a": Attack(getattr, "text", "join")},
        {"a": np.zeros(2)},
        {"a": 1.5},
        [1, 2],
        {"a": {1, 2}},
    ],
    ids=["command", "eval", "getattr", "numpy", "number", "list", "set"],
)
def test_anything_but_tensors_is_an_error(
    write: Callable[..., Path], state: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(state)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"weights\.pth: expected tensors"):
        read_torch_weights(path)
    assert not (tmp_path / "attacked").exists()


def test_other_machines_formats_and_damage_are_errors(write: Callable[..., Path]) -> None:
    storage = floats(4)
    state = OrderedDict(a=Tensor(storage, 0, (4,), (1,)))
    with pytest.raises(InputError, match="little-endian"):
        read_torch_weights(write(state, storage, machine={"little_endian": False}))
    with pytest.raises(InputError, match="magic number"):
        read_torch_weights(write(state, storage, magic=1))
    with pytest.raises(InputError, match="storages that do not match"):
        read_torch_weights(write(state, storage, floats(2, "9")))
    whole = write(state, storage).read_bytes()
    for cut in range(0, len(whole), 7):
        path = write(state, storage)
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError):
            read_torch_weights(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none\.pth"):
        read_torch_weights(tmp_path / "none.pth")
