"""Protobuf messages made at run time from plain values, in a descriptor pool of their own.

They are wire-compatible with TensorFlow's and TF Serving's public protos but never touch the
default pool, so they work without TensorFlow and never clash with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    wrappers_pb2,
)

_TYPE = descriptor_pb2.FieldDescriptorProto
_KINDS = {
    "double": _TYPE.TYPE_DOUBLE,
    "float": _TYPE.TYPE_FLOAT,
    "int64": _TYPE.TYPE_INT64,
    "uint64": _TYPE.TYPE_UINT64,
    "int32": _TYPE.TYPE_INT32,
    "uint32": _TYPE.TYPE_UINT32,
    "bool": _TYPE.TYPE_BOOL,
    "string": _TYPE.TYPE_STRING,
    "bytes": _TYPE.TYPE_BYTES,
}
_WELL_KNOWN = {
    "Any": ".google.protobuf.Any",
    "Int32Value": ".google.protobuf.Int32Value",
    "Int64Value": ".google.protobuf.Int64Value",
    "StringValue": ".google.protobuf.StringValue",
    "BoolValue": ".google.protobuf.BoolValue",
}


class Field(NamedTuple):
    """A field: its kind is a scalar's name, a message's name, or a map value's with `mapped`.

    `group` names the oneof that the field belongs to.
    """

    name: str
    number: int
    kind: str
    many: bool = False
    mapped: bool = False
    group: str = ""


def build_messages(package: str, schema: Mapping[str, Sequence[Field]]) -> dict[str, Any]:
    """Return the message classes of a schema (message name to fields), by name.

    A name in the schema may be of another proto package: "tensorflow.TensorProto".
    """
    pool = descriptor_pool.DescriptorPool()
    for module in (any_pb2, wrappers_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    full = {name: name if "." in name else f"{package}.{name}" for name in schema}
    by_package: dict[str, dict[str, Sequence[Field]]] = {}
    for name, fields in schema.items():
        owner, _, short = full[name].rpartition(".")
        by_package.setdefault(owner, {})[short] = fields
    for owner in sorted(by_package, key=lambda item: item == package):
        file = descriptor_pb2.FileDescriptorProto(
            name=f"regraft/{owner}.proto", package=owner, syntax="proto3"
        )
        file.dependency.extend([any_pb2.DESCRIPTOR.name, wrappers_pb2.DESCRIPTOR.name])
        if owner == package:
            file.dependency.extend(
                f"regraft/{other}.proto" for other in by_package if other != owner
            )
        for short, fields in by_package[owner].items():
            _add_message(file.message_type.add(name=short), fields, f"{owner}.{short}", full)
        pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(full[name]))
        for name in schema
    }


def _add_message(
    message: Any, fields: Sequence[Field], full_name: str, full: Mapping[str, str]
) -> None:
    groups: list[str] = []
    for field in fields:
        many = field.many or field.mapped
        added = message.field.add(
            name=field.name,
            number=field.number,
            label=_TYPE.LABEL_REPEATED if many else _TYPE.LABEL_OPTIONAL,
        )
        if field.mapped:
            entry_name = "".join(part.title() for part in field.name.split("_")) + "Entry"
            entry = message.nested_type.add(name=entry_name)
            entry.options.map_entry = True
            entry.field.add(
                name="key", number=1, type=_TYPE.TYPE_STRING, label=_TYPE.LABEL_OPTIONAL
            )
            value = entry.field.add(name="value", number=2, label=_TYPE.LABEL_OPTIONAL)
            _set_kind(value, field.kind, full)
            added.type, added.type_name = _TYPE.TYPE_MESSAGE, f".{full_name}.{entry_name}"
        else:
            _set_kind(added, field.kind, full)
        if field.group:
            if field.group not in groups:
                groups.append(field.group)
                message.oneof_decl.add(name=field.group)
            added.oneof_index = groups.index(field.group)


def _set_kind(field: Any, kind: str, full: Mapping[str, str]) -> None:
    if kind in _KINDS:
        field.type = _KINDS[kind]
    else:
        field.type = _TYPE.TYPE_MESSAGE
        field.type_name = _WELL_KNOWN[kind] if kind in _WELL_KNOWN else f".{full[kind]}"


CONFIG: dict[str, Any] = build_messages(
    "tensorflow.serving",
    {
        "BatchingParameters": [
            Field("max_batch_size", 1, "Int64Value"),
            Field("batch_timeout_micros", 2, "Int64Value"),
            Field("max_enqueued_batches", 3, "Int64Value"),
            Field("num_batch_threads", 4, "Int64Value"),
            Field("thread_pool_name", 5, "StringValue"),
            Field("allowed_batch_sizes", 6, "int64", many=True),
            Field("pad_variable_length_inputs", 7, "bool"),
            Field("enable_large_batch_splitting", 8, "BoolValue"),
            Field("max_execution_batch_size", 9, "Int64Value"),
        ],
        "PrometheusConfig": [Field("enable", 1, "bool"), Field("path", 2, "string")],
        "MonitoringConfig": [Field("prometheus_config", 1, "PrometheusConfig")],
        "SSLConfig": [
            Field("server_key", 1, "string"),
            Field("server_cert", 2, "string"),
            Field("custom_ca", 3, "string"),
            Field("client_verify", 4, "bool"),
        ],
    },
)
