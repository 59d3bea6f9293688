"""TF Serving's request and answer messages, wire-compatible, without TensorFlow.

Only the fields that the client uses are spelled out; others are kept as unknown fields.
Enumerations travel as numbers.
"""

from __future__ import annotations

from typing import Any

from regraft_client.message_builder import Field, build_messages

MESSAGES: dict[str, Any] = build_messages(
    "tensorflow.serving",
    {
        "tensorflow.Dim": [Field("size", 1, "int64"), Field("name", 2, "string")],
        "tensorflow.TensorShapeProto": [
            Field("dim", 2, "tensorflow.Dim", many=True),
            Field("unknown_rank", 3, "bool"),
        ],
        "tensorflow.TensorProto": [
            Field("dtype", 1, "int32"),
            Field("tensor_shape", 2, "tensorflow.TensorShapeProto"),
            Field("version_number", 3, "int32"),
            Field("tensor_content", 4, "bytes"),
            Field("float_val", 5, "float", many=True),
            Field("double_val", 6, "double", many=True),
            Field("int_val", 7, "int32", many=True),
            Field("string_val", 8, "bytes", many=True),
            Field("int64_val", 10, "int64", many=True),
            Field("bool_val", 11, "bool", many=True),
        ],
        "tensorflow.BytesList": [Field("value", 1, "bytes", many=True)],
        "tensorflow.FloatList": [Field("value", 1, "float", many=True)],
        "tensorflow.Int64List": [Field("value", 1, "int64", many=True)],
        "tensorflow.Feature": [
            Field("bytes_list", 1, "tensorflow.BytesList", group="kind"),
            Field("float_list", 2, "tensorflow.FloatList", group="kind"),
            Field("int64_list", 3, "tensorflow.Int64List", group="kind"),
        ],
        "tensorflow.Features": [Field("feature", 1, "tensorflow.Feature", mapped=True)],
        "tensorflow.Example": [Field("features", 1, "tensorflow.Features")],
        "tensorflow.TensorInfo": [
            Field("name", 1, "string"),
            Field("dtype", 2, "int32"),
            Field("tensor_shape", 3, "tensorflow.TensorShapeProto"),
        ],
        "tensorflow.SignatureDef": [
            Field("inputs", 1, "tensorflow.TensorInfo", mapped=True),
            Field("outputs", 2, "tensorflow.TensorInfo", mapped=True),
            Field("method_name", 3, "string"),
        ],
        "ModelSpec": [
            Field("name", 1, "string"),
            Field("version", 2, "Int64Value", group="version_choice"),
            Field("version_label", 4, "string", group="version_choice"),
            Field("signature_name", 3, "string"),
        ],
        "PredictRequest": [
            Field("model_spec", 1, "ModelSpec"),
            Field("inputs", 2, "tensorflow.TensorProto", mapped=True),
            Field("output_filter", 3, "string", many=True),
        ],
        "PredictResponse": [
            Field("model_spec", 2, "ModelSpec"),
            Field("outputs", 1, "tensorflow.TensorProto", mapped=True),
        ],
        "ExampleList": [Field("examples", 1, "tensorflow.Example", many=True)],
        "ExampleListWithContext": [
            Field("examples", 1, "tensorflow.Example", many=True),
            Field("context", 2, "tensorflow.Example"),
        ],
        "Input": [
            Field("example_list", 1, "ExampleList", group="kind"),
            Field("example_list_with_context", 2, "ExampleListWithContext", group="kind"),
        ],
        "Class": [Field("label", 1, "string"), Field("score", 2, "float")],
        "Classifications": [Field("classes", 1, "Class", many=True)],
        "ClassificationResult": [Field("classifications", 1, "Classifications", many=True)],
        "ClassificationRequest": [
            Field("model_spec", 1, "ModelSpec"),
            Field("input", 2, "Input"),
        ],
        "ClassificationResponse": [
            Field("result", 1, "ClassificationResult"),
            Field("model_spec", 2, "ModelSpec"),
        ],
        "GetModelMetadataRequest": [
            Field("model_spec", 1, "ModelSpec"),
            Field("metadata_field", 2, "string", many=True),
        ],
        "GetModelMetadataResponse": [
            Field("model_spec", 1, "ModelSpec"),
            Field("metadata", 2, "Any", mapped=True),
        ],
        "SignatureDefMap": [Field("signature_def", 1, "tensorflow.SignatureDef", mapped=True)],
        "StatusProto": [Field("error_code", 1, "int32"), Field("error_message", 2, "string")],
        "ModelVersionStatus": [
            Field("version", 1, "int64"),
            Field("state", 2, "int32"),
            Field("status", 3, "StatusProto"),
        ],
        "GetModelStatusRequest": [Field("model_spec", 1, "ModelSpec")],
        "GetModelStatusResponse": [
            Field("model_version_status", 1, "ModelVersionStatus", many=True)
        ],
    },
)
