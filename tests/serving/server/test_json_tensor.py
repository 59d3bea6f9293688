"""JSON of predict as tensors and back, without a server."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving.server.protocol.json_tensor import read_inputs, to_array, write_outputs
from serving.server.protocol.json_values import decode_base64, shown
from serving.server.protocol.signature import TensorSpec
from serving.server.protocol.status import ServingError
from serving.server.protocol.tensors import Typed


def strings(*values: bytes) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.mark.parametrize("shape", [(0,), (0, 0, 2), (2, 0), (1, 0, 3), (2, 1, 2)])
@pytest.mark.parametrize("dtype", [tf.float32, tf.int64, tf.string], ids=lambda d: d.name)
def test_outputs_keep_their_shape(shape: tuple[int, ...], dtype: tf.DType) -> None:
    kind = object if dtype == tf.string else dtype.as_numpy_dtype
    array = np.full(shape, b"a" if dtype == tf.string else 1, dtype=kind)
    nested = json.loads(write_outputs({"y": Typed(array, dtype)}, "column"))["outputs"]
    assert np.array(nested).shape == np.array(array.tolist()).shape
    assert json.loads(write_outputs({"y": Typed(array, dtype)}, "row")) == {"predictions": nested}


def test_a_float32_is_written_as_its_shortest_text() -> None:
    values = np.array([0.1, 1 / 3, 16777216, 1e-45, 3.4028235e38], np.float32)
    text = write_outputs({"y": Typed(values, tf.float32)}, "column").decode()
    assert text == '{"outputs": [0.1, 0.33333334, 16777216.0, 1e-45, 3.4028235e+38]}'
    assert (np.array(json.loads(text)["outputs"], np.float32) == values).all()


def test_a_scalar_is_not_a_list() -> None:
    assert write_outputs({"y": Typed(np.array(2.5), tf.float64)}, "column") == b'{"outputs": 2.5}'


LIMITS: list[tuple[tf.DType, list[int], int]] = [
    (tf.int8, [-128, 127], 128),
    (tf.uint8, [0, 255], -1),
    (tf.int16, [-32768, 32767], 32768),
    (tf.int32, [-(1 << 31), (1 << 31) - 1], 1 << 31),
    (tf.int64, [-(1 << 63), (1 << 63) - 1], 1 << 63),
    (tf.uint32, [0, (1 << 32) - 1], 1 << 32),
    (tf.uint64, [0, (1 << 64) - 1], 1 << 64),
]


@pytest.mark.parametrize(("dtype", "inside", "outside"), LIMITS, ids=[d.name for d, *_ in LIMITS])
def test_integers_beyond_their_type_are_rejected(
    dtype: tf.DType, inside: list[int], outside: int
) -> None:
    assert to_array(inside, dtype).tolist() == inside
    with pytest.raises(ServingError, match=f"{outside} Type: Number is not of expected type"):
        to_array([inside[0], outside], dtype)


BASE64 = [("YQ==", b"a"), ("YQ", b"a"), (" YWI=\n", b"ab"), ("+/+/", b"\xfb\xff\xbf"), ("", b"")]


@pytest.mark.parametrize(("text", "data"), BASE64)
def test_base64_with_and_without_padding(text: str, data: bytes) -> None:
    assert decode_base64({"b64": text}) == data


@pytest.mark.parametrize("text", ["%%%", "A", "YQ==YQ==", "ü", "-_-_"])
def test_damaged_base64(text: str) -> None:
    with pytest.raises(ServingError, match="Unable to base64 decode"):
        decode_base64({"b64": text})


def test_base64_rows_of_two_inputs_are_rejected() -> None:
    specs = {name: TensorSpec(name, tf.string, None) for name in "ab"}
    for document in ({"instances": [{"b64": "YQ=="}]}, {"inputs": {"b64": "YQ=="}}):
        with pytest.raises(ServingError, match="input size does not match signature: 1!=2"):
            read_inputs(document, specs)
    both: dict[str, Any] = {"instances": [{"a": {"b64": "YQ=="}, "b": "x"}]}
    inputs, form = read_inputs(both, specs)
    assert form == "row"
    assert {name: typed.array.tolist() for name, typed in inputs.items()} == {
        "a": [b"a"], "b": [b"x"]
    }  # fmt: skip


def test_values_in_errors_are_short() -> None:
    for value in ([[1.5] * 1000] * 1000, "x" * 10_000, {str(n): [n] * 100 for n in range(1000)}):
        assert len(shown(value)) <= 256
