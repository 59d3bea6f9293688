"""REST bodies of classify and regress: JSON to `Input` messages, results to JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.server.protocol.json_values import (
    decode_base64,
    is_base64,
    shortest,
    text_bytes,
    type_of,
)
from serving.server.protocol.status import invalid


def read_examples(document: Mapping[str, Any], request_input: Any) -> None:
    """Fill an `Input` from the `examples` and `context` of a request.

    Raises:
        ServingError: INVALID_ARGUMENT if they are missing or not as the API expects.
    """
    target = request_input.example_list
    if "context" in document:
        target = request_input.example_list_with_context
        _read_example(document["context"], target.context)
    if "examples" not in document:
        raise invalid("When method is classify, key 'examples' is expected and was not found")
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid("Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid("'examples' value is an empty array")
    for value in examples:
        _read_example(value, target.examples.add())


def classification_json(result: Any) -> dict[str, Any]:
    """Return `{"results": [[[label, score], ...], ...]}`."""
    if not result.classifications:
        raise invalid("Cannot convert empty ClassificationResults to JSON")
    return {
        "results": [
            [[entry.label, shortest(entry.score)] for entry in row.classes]
            for row in result.classifications
        ]
    }


def regression_json(result: Any) -> dict[str, Any]:
    """Return `{"results": [value, ...]}`."""
    if not result.regressions:
        raise invalid("Cannot convert empty RegressionResults to JSON")
    return {"results": [shortest(entry.value) for entry in result.regressions]}


def _read_example(value: Any, example: Any) -> None:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_of(value)}")
    example.SetInParent()
    for name, content in value.items():
        key = text_bytes(name).decode("utf-8", "replace")
        feature = example.features.feature[key]
        for element in content if isinstance(content, list) else [content]:
            _add_element(element, name, feature)


def _add_element(value: Any, name: str, feature: Any) -> None:
    if value is None or (isinstance(value, list | dict) and not is_base64(value)):
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {type_of(value)}")
    kind = "int64_list"
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        value = float(value)  # JSON parsers without larger integers read it so
    if isinstance(value, float):
        kind = "float_list"
    elif isinstance(value, str | dict):
        kind = "bytes_list"
        value = text_bytes(value) if isinstance(value, str) else decode_base64(value)
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        expected = present.removesuffix("_list")
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {expected}")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    getattr(feature, kind).value.append(value)
