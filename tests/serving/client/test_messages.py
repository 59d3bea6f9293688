"""The messages of the client: generated from their .proto file, and TF Serving's on the wire."""

from __future__ import annotations

import importlib.resources
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pool, message_factory

from regraft_client import errors, grpc_wire, serving_pb2
from serving.server.protocol import config_files_pb2
from tests.serving.proto_text import declared, generated

MESSAGES = sorted(serving_pb2.DESCRIPTOR.message_types_by_name)
MAX_DEPTH = 7


@pytest.mark.parametrize("module", [serving_pb2, config_files_pb2], ids=lambda m: m.__name__)
def test_the_generated_code_matches_its_proto_file(module: ModuleType) -> None:
    package, _, name = module.__name__.rpartition(".")
    file = importlib.resources.files(package) / f"{name.removesuffix('_pb2')}.proto"
    fields = generated(module.DESCRIPTOR)
    assert declared(file.read_text(encoding="utf-8")) == fields
    assert len(fields) > 15


def official(name: str) -> Any:
    """Return the message class of TensorFlow or TF Serving with this name."""
    from tensorflow_serving.apis import (  # noqa: F401  # registers the messages
        get_model_metadata_pb2,
        model_service_pb2,
        prediction_service_pb2,
    )

    pool = descriptor_pool.Default()
    try:
        descriptor = pool.FindMessageTypeByName(f"tensorflow.serving.{name}")
    except KeyError:
        descriptor = pool.FindMessageTypeByName(f"tensorflow.{name}")
    return message_factory.GetMessageClass(descriptor)


def fill(message: Any, choice: int, depth: int = 0) -> Any:
    """Set all fields of a message, and of each oneof the field number `choice`."""
    for field in message.DESCRIPTOR.fields:
        group = field.containing_oneof
        if group and group.fields[choice % len(group.fields)] is not field:
            continue
        kind = field.message_type
        if kind and kind.GetOptions().map_entry:
            values = getattr(message, field.name)
            if depth < MAX_DEPTH and kind.fields_by_name["value"].message_type:
                fill(values["key"], choice, depth + 1)
        elif kind and field.is_repeated:
            if depth < MAX_DEPTH:
                fill(getattr(message, field.name).add(), choice, depth + 1)
        elif kind:
            if depth < MAX_DEPTH:
                getattr(message, field.name).SetInParent()
                fill(getattr(message, field.name), choice, depth + 1)
        elif field.is_repeated:
            getattr(message, field.name).extend([example(field), example(field)])
        else:
            setattr(message, field.name, example(field))
    return message


def example(field: Any) -> Any:
    if field.enum_type:
        return field.enum_type.values[-1].number
    values = {
        field.CPPTYPE_STRING: "text",
        field.CPPTYPE_BOOL: True,
        field.CPPTYPE_FLOAT: 0.5,
        field.CPPTYPE_DOUBLE: 0.25,
    }
    value = values.get(field.cpp_type, 11 + field.number)
    return value.encode() if field.type == field.TYPE_BYTES else value  # type: ignore[union-attr]


def plain(value: Any) -> Any:
    """Return a message as dictionaries by field name, which do not depend on its class."""
    if hasattr(value, "ListFields"):
        return {field.name: plain(content) for field, content in value.ListFields()}
    if hasattr(value, "items"):
        return {key: plain(content) for key, content in value.items()}
    if hasattr(value, "extend"):
        return [plain(content) for content in value]
    return value


@pytest.mark.parametrize("choice", [0, 1])
@pytest.mark.parametrize("name", MESSAGES)
def test_messages_round_trip_through_tf_servings_classes(name: str, choice: int) -> None:
    own_class, official_class = getattr(serving_pb2, name), official(name)
    own = fill(own_class(), choice)
    read = official_class.FromString(own.SerializeToString())
    assert plain(read) == plain(own) != {}
    assert own_class.FromString(read.SerializeToString()) == own

    full = fill(official_class(), choice)
    kept = own_class.FromString(full.SerializeToString())
    assert official_class.FromString(kept.SerializeToString()) == full


@pytest.mark.parametrize("name", ["DataType", "Code", "ModelVersionStatus.State"])
def test_enum_values_are_tf_servings(name: str) -> None:
    from tensorflow.core.framework import types_pb2
    from tensorflow_serving.apis import get_model_status_pb2, status_pb2

    official_enum, own_enum = {
        "DataType": (types_pb2.DataType, serving_pb2.DataType),
        "Code": (type(status_pb2.StatusProto().error_code), serving_pb2.Code),
        "ModelVersionStatus.State": (
            get_model_status_pb2.ModelVersionStatus.State,
            serving_pb2.ModelVersionStatus.State,
        ),
    }[name]
    if name == "Code":
        field = status_pb2.StatusProto.DESCRIPTOR.fields_by_name["error_code"]
        numbers = {value.name: value.number for value in field.enum_type.values}
    else:
        numbers = dict(official_enum.items())
    assert set(own_enum.items()) <= set(numbers.items())


def response(**outputs: Any) -> Any:
    """Return TF Serving's PredictResponse with these arrays, as this client reads it."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    message = predict_pb2.PredictResponse()
    for alias, value in outputs.items():
        proto = value if hasattr(value, "tensor_shape") else tf.make_tensor_proto(value)
        message.outputs[alias].CopyFrom(proto)
    return serving_pb2.PredictResponse.FromString(message.SerializeToString())


OUTPUTS: dict[str, Any] = {
    "label": [b"x", b"y"],
    "confidence": np.array([0.5, 1], np.float32),
    "probabilities": np.array([[0.5, 0.5], [0, 1]], np.float32),
}


def test_tensors_are_parsed_in_both_forms() -> None:
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    rows = grpc_wire.parse_predictions(response(**OUTPUTS))
    assert [row.probabilities for row in rows] == [(0.5, 0.5), (0.0, 1.0)]
    assert [row.familiar for row in rows] == [None, None]
    rows = grpc_wire.parse_predictions(response(**OUTPUTS, familiar=[True, False]))
    assert [row.familiar for row in rows] == [True, False]
    content = TensorProto(dtype=10, tensor_content=b"\0\1")
    rows = grpc_wire.parse_predictions(response(**OUTPUTS, familiar=content))
    assert [row.familiar for row in rows] == [False, True]
    assert [(row.label_set, row.abstain) for row in rows] == [(None, None)] * 2
    inside = [[True, False], [True, True]]
    rows = grpc_wire.parse_predictions(response(**OUTPUTS, label_set=inside, abstain=[True, False]))
    assert [row.label_set for row in rows] == [(True, False), (True, True)]
    assert [row.abstain for row in rows] == [True, False]
    assert [row.selected for row in rows] == [None, None]
    chosen = [[False, False], [True, True]]
    rows = grpc_wire.parse_predictions(response(**OUTPUTS, selected=chosen))
    assert [row.selected for row in rows] == [(False, False), (True, True)]
    assert [row.label_set for row in rows] == [None, None]


def test_outputs_of_another_kind_are_the_servers_error() -> None:
    with pytest.raises(errors.ServerFailedError, match="expected the output 'label', got"):
        grpc_wire.parse_predictions(response())
    other = OUTPUTS | {"confidence": [1, 2]}
    with pytest.raises(errors.ServerFailedError, match="as DT_FLOAT, got DT_INT32"):
        grpc_wire.parse_predictions(response(**other))


def test_requests_are_read_by_tf_servings_classes() -> None:
    import tensorflow as tf

    call = grpc_wire.predict_call(grpc_wire.Target("m", label="canary"), [b"a", b"b"], "features")
    read = official("PredictRequest").FromString(call.request.SerializeToString())
    assert (read.model_spec.version_label, read.model_spec.signature_name) == ("canary", "features")
    assert tf.make_ndarray(read.inputs["image_bytes"]).tolist() == [b"a", b"b"]

    call = grpc_wire.classify_call(grpc_wire.Target("m", version=3), [b"a"])
    read = official("ClassificationRequest").FromString(call.request.SerializeToString())
    (item,) = read.input.example_list.examples
    assert read.model_spec.version.value == 3
    assert list(item.features.feature["image/encoded"].bytes_list.value) == [b"a"]


def test_values_of_newer_servers_are_shown_as_numbers() -> None:
    from tensorflow_serving.apis import get_model_status_pb2

    message = get_model_status_pb2.GetModelStatusResponse()
    message.model_version_status.add(version=4, state="END").status.error_code = 13
    message.model_version_status.add(version=5, state=77).status.error_code = 99
    read = serving_pb2.GetModelStatusResponse.FromString(message.SerializeToString())
    first, second = grpc_wire.parse_status(read)
    assert (first.version, first.state, first.error_code) == (4, "END", "INTERNAL")
    assert (second.version, second.state, second.error_code) == (5, "77", "99")
