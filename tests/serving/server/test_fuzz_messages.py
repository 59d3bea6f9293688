"""Whatever message a client sends, no gRPC method ends with UNKNOWN or INTERNAL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.running.runner import Addresses
from tests.serving.raw import Stubs

SIGNATURES = ["", "images", "classify", "regress", "mix", "odd", "texts", "flags", "half", "small",
              "large", "pair", "scaled", "matrix", "brain", "unsigned", "complex", "none",
              "__saved_model_init_op"]  # fmt: skip
ALIASES = st.sampled_from(["x", "a", "b", "images", "image_bytes", "inputs", "factor"])
SIZES = st.sampled_from([0, 1, 2, 3, -1, 1 << 20, 1 << 40, (1 << 62), -(1 << 63)])
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
FLOATS = st.floats(width=32)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "float_val": FLOATS,
    "double_val": st.floats(),
    "int_val": INT32,
    "half_val": INT32,
    "int64_val": INT64,
    "bool_val": st.booleans(),
    "uint32_val": st.integers(0, (1 << 32) - 1),
    "uint64_val": st.integers(0, (1 << 64) - 1),
    "scomplex_val": FLOATS,
    "dcomplex_val": st.floats(),
    "string_val": st.binary(max_size=20),
}


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the fields of a TensorProto, as a dict that can be shown."""
    fields: dict[str, Any] = {
        "dtype": draw(st.integers(0, 35) | st.sampled_from([101, 119, 9999, -1])),
        "shape": draw(st.lists(SIZES, max_size=4) | st.sampled_from([[1] * 65, [1] * 300])),
        "unknown_rank": draw(st.integers(0, 9)) == 0,
    }
    if draw(st.integers(0, 3)) == 0:
        fields["tensor_content"] = draw(st.binary(max_size=40))
    for name in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=2, unique=True)):
        fields[name] = draw(st.lists(FIELDS[name], max_size=6))
    return fields


def tensor_proto(fields: dict[str, Any]) -> Any:
    from tensorflow.core.framework import tensor_pb2

    plain = {name: value for name, value in fields.items() if name not in ("shape", "unknown_rank")}
    proto = tensor_pb2.TensorProto(**plain)
    for size in fields["shape"]:
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_shape.unknown_rank = fields["unknown_rank"]
    return proto


FEATURES = st.dictionaries(
    st.sampled_from(["image/encoded", "x", ""]),
    st.lists(st.binary(max_size=20), max_size=3)
    | st.lists(INT64, max_size=3)
    | st.lists(FLOATS, max_size=3),
    max_size=2,
)


def fill_example(features: dict[str, list[Any]], example: Any) -> None:
    for name, values in features.items():
        kinds = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
        kind = kinds[type(values[0])] if values else "bytes_list"
        getattr(example.features.feature[name], kind).value.extend(values)


@pytest.fixture(scope="module")
def stubs(server: Addresses) -> Iterator[Stubs]:
    found = Stubs(server.grpc)
    yield found
    found.channel.close()


def code_of(call: Any, request: Any) -> str:
    try:
        call(request, timeout=60)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"


def quick(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def fuzz_predict(stubs: Stubs, examples: int) -> None:
    from tensorflow_serving.apis import predict_pb2

    @quick(examples)
    @given(
        st.sampled_from(SIGNATURES),
        st.dictionaries(ALIASES, tensors(), max_size=3),
        st.lists(st.sampled_from(["y", "sum", "text", "none"]), max_size=2),
    )
    def send(signature: str, inputs: dict[str, Any], outputs: list[str]) -> None:
        request = predict_pb2.PredictRequest(output_filter=outputs)
        request.model_spec.name, request.model_spec.signature_name = "tiny", signature
        for alias, fields in inputs.items():
            request.inputs[alias].CopyFrom(tensor_proto(fields))
        assert not code_of(stubs.prediction.Predict, request).startswith(("UNKNOWN", "INTERNAL"))

    send()


def fuzz_examples(stubs: Stubs, examples: int) -> None:
    from tensorflow_serving.apis import classification_pb2, regression_pb2

    @quick(examples)
    @given(
        st.sampled_from(SIGNATURES),
        st.lists(FEATURES, max_size=3),
        st.none() | FEATURES,
        st.booleans(),
    )
    def send(signature: str, rows: list[Any], context: Any, regress: bool) -> None:
        kind = regression_pb2.RegressionRequest if regress else None
        request = (kind or classification_pb2.ClassificationRequest)()
        request.model_spec.name, request.model_spec.signature_name = "tiny", signature
        target = request.input.example_list
        if context is not None:
            target = request.input.example_list_with_context
            fill_example(context, target.context)
        for row in rows:
            fill_example(row, target.examples.add())
        call = stubs.prediction.Regress if regress else stubs.prediction.Classify
        assert not code_of(call, request).startswith(("UNKNOWN", "INTERNAL"))

    send()


CONTENTS: dict[str, st.SearchStrategy[Any]] = {
    "bool_contents": st.booleans(),
    "int_contents": INT32,
    "int64_contents": INT64,
    "uint_contents": st.integers(0, (1 << 32) - 1),
    "uint64_contents": st.integers(0, (1 << 64) - 1),
    "fp32_contents": FLOATS,
    "fp64_contents": st.floats(),
    "bytes_contents": st.binary(max_size=20),
}
DATATYPES = ["BOOL", "UINT8", "UINT16", "UINT64", "INT8", "INT64", "FP16", "BF16", "FP32", "FP64",
             "BYTES", ""]  # fmt: skip
INFER_INPUTS = st.lists(
    st.fixed_dictionaries(
        {
            "name": ALIASES,
            "datatype": st.sampled_from(DATATYPES),
            "shape": st.lists(SIZES, max_size=4) | st.just([1] * 65),
            "contents": st.fixed_dictionaries(
                {},
                optional={name: st.lists(one, max_size=4) for name, one in CONTENTS.items()},
            ),
        }
    ),
    max_size=3,
)


def fuzz_open_inference(stubs: Stubs, examples: int) -> None:
    from serving.server.protocol import open_inference_pb2 as pb

    call = stubs.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    @quick(examples)
    @given(
        st.sampled_from(SIGNATURES),
        INFER_INPUTS,
        st.lists(st.binary(max_size=24), max_size=3),
        st.lists(st.sampled_from(["y", "sum", "text", "none"]), max_size=2),
        st.sampled_from(["", "1", "stable", "none", "-1", "9" * 30]),
    )
    def send(
        signature: str, inputs: list[Any], raw: list[bytes], outputs: list[str], version: str
    ) -> None:
        request = pb.ModelInferRequest(
            model_name="tiny", model_version=version, raw_input_contents=raw
        )
        request.parameters["signature_name"].string_param = signature
        for fields in inputs:
            if raw and len(raw) == len(inputs):
                fields = {**fields, "contents": {}}
            request.inputs.add(**fields)
        for name in outputs:
            request.outputs.add(name=name)
        found = code_of(call, request.SerializeToString())
        assert not found.startswith(("UNKNOWN", "INTERNAL")), found

    send()


def fuzz_bytes(stubs: Stubs, examples: int) -> None:
    paths = [f"/tensorflow.serving.PredictionService/{name}"
             for name in ("Predict", "Classify", "MultiInference", "GetModelMetadata")]  # fmt: skip
    paths.append("/tensorflow.serving.ModelService/GetModelStatus")
    paths += [f"/inference.GRPCInferenceService/{name}"
              for name in ("ServerLive", "ModelReady", "ModelMetadata", "ModelInfer")]  # fmt: skip

    @quick(examples)
    @given(st.sampled_from(paths), st.binary(max_size=60))
    def send(path: str, message: bytes) -> None:
        found = code_of(stubs.channel.unary_unary(path), message)
        assert not found.startswith(("UNKNOWN", "INTERNAL"))

    send()


def test_some_messages(stubs: Stubs) -> None:
    fuzz_predict(stubs, 250)
    fuzz_examples(stubs, 100)
    fuzz_open_inference(stubs, 250)
    fuzz_bytes(stubs, 150)


@pytest.mark.long(seconds=40)
def test_many_messages(stubs: Stubs) -> None:
    fuzz_predict(stubs, 2500)
    fuzz_examples(stubs, 1000)
    fuzz_open_inference(stubs, 2500)
    fuzz_bytes(stubs, 1000)
