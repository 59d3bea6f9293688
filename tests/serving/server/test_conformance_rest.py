"""The contract of TF Serving's REST API, row by row, on the server under test."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from serving.running.runner import Addresses
from tests.serving.raw import b64, http_request, post

M = "/v1/models/tiny"

MALFORMED = [
    ("POST", f"{M}:predict?x=1"),
    ("POST", f"{M}:PREDICT"),
    ("POST", f"{M}:Predict"),
    ("POST", f"{M}:explain"),
    ("POST", M),
    ("POST", f"{M}/metadata"),
    ("POST", f"{M}/versions/1/labels/stable:predict"),
    ("POST", f"{M}/versions/abc:predict"),
    ("POST", f"{M}/versions/-1:predict"),
    ("POST", f"{M}/versions/:predict"),
    ("POST", f"{M}/labels/:predict"),
    ("POST", "/v1/models/:predict"),
    ("POST", "/v1/models:predict"),
    ("PUT", f"{M}:predict"),
    ("DELETE", M),
    ("PATCH", M),
    ("GET", f"{M}:predict"),
    ("GET", f"{M}:classify"),
    ("GET", f"{M}/"),
    ("GET", f"{M}/versions/abc"),
    ("GET", f"{M}/versions/1/labels/stable"),
    ("GET", f"{M}/metadata/"),
    ("GET", f"{M}/unknown"),
    ("GET", "/v1/modelz/tiny"),
]


@pytest.mark.parametrize(("verb", "path"), MALFORMED)
def test_malformed_request_lines(server: Addresses, verb: str, path: str) -> None:
    status, headers, body = http_request(server.rest, verb, path, b'{"instances": [1]}')
    assert status == 400
    assert headers["content-type"].split(";")[0] == "application/json"
    assert json.loads(body)["error"].startswith(f"Malformed request: {verb} {path}")


def test_the_list_of_models_needs_a_name(server: Addresses) -> None:
    status, _, body = http_request(server.rest, "GET", "/v1/models")
    assert (status, json.loads(body)["error"]) == (400, "Missing model name in request.")


def test_other_paths_are_not_found(server: Addresses) -> None:
    assert http_request(server.rest, "GET", "/elsewhere")[0] == 404


REQUEST_LINES = [
    f"{M}:predict",
    f"{M}/versions/2:predict",
    f"{M}/versions/00002:predict",
    f"{M}/labels/canary:predict",
    "/V1/Models/tiny/VERSIONS/2:predict",
    "/v1/models/t%69ny/Labels/can%61ry:predict",
]


@pytest.mark.parametrize("path", REQUEST_LINES)
def test_request_lines(server: Addresses, path: str, images: list[bytes]) -> None:
    status, document = post(server.rest, path, {"instances": [b64(images[0])]})
    assert status == 200
    assert document["predictions"][0]["label"].startswith("even-")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "image/png"])
def test_any_content_type_is_read(server: Addresses, kind: str) -> None:
    body = json.dumps({"signature_name": "large", "instances": [1, 2]})
    status, _, content = http_request(
        server.rest, "POST", f"{M}:predict", body, {"Content-Type": kind}
    )
    assert (status, json.loads(content)) == (200, {"predictions": [1, 2]})


def test_gzip_is_inflated(server: Addresses) -> None:
    body = gzip.compress(json.dumps({"signature_name": "large", "inputs": [1, 2]}).encode())
    status, _, content = http_request(
        server.rest, "POST", f"{M}:predict", body, {"Content-Encoding": "gzip"}
    )
    assert (status, json.loads(content)) == (200, {"outputs": [1, 2]})


MIX = {"signature_name": "mix"}
LARGE = {"signature_name": "large"}
ODD = {"signature_name": "odd"}
PREDICT_ERRORS: list[tuple[str, Any, int, str]] = [
    ("empty body", "", 400, "JSON Parse error: The document is empty"),
    ("no JSON", "{bad", 400, "JSON Parse error: "),
    ("a list", "[1]", 400, "Is not object"),
    ("a number", "1", 400, "Is not object"),
    (
        "signature_name no string",
        {"signature_name": 5, "instances": [1]},
        400,
        "'signature_name' key must be a string value.",
    ),
    (
        "unknown signature",
        {"signature_name": "x", "instances": [1]},
        400,
        'Serving signature name: "x" not found in signature def',
    ),
    ("no key", {}, 400, "Missing 'inputs' or 'instances' key"),
    ("both keys", {"inputs": [1], "instances": [1]}, 400, "expecting only one of"),
    ("instances no list", {"instances": 5}, 400, "Expecting 'instances' to be an list/array"),
    ("instances empty", {"instances": []}, 400, "No values in 'instances' array"),
    (
        "list in objects",
        {**LARGE, "instances": [{"x": 1}, 2]},
        400,
        "Expecting object but got list at item 1",
    ),
    (
        "object in list",
        {**LARGE, "instances": [1, {"x": 2}]},
        400,
        "Expecting value/list but got object at item 1",
    ),
    ("plain list for two inputs", {**MIX, "instances": [1]}, 400, "instances is a plain list"),
    (
        "missing key",
        {**MIX, "instances": [{"a": 1.0}]},
        400,
        "keys must be equal to: a,b",
    ),
    (
        "unknown key",
        {**MIX, "instances": [{"a": 1.0, "b": 1, "c": 1}]},
        400,
        "does not have named input: c",
    ),
    ("ragged", {**LARGE, "instances": [[1, 2], [1]]}, 400, "Expecting tensor size: 2 but got: 1"),
    (
        "same size, other shape",
        {**LARGE, "instances": [[[1, 2]], [[1], [2]]]},
        400,
        "Expecting shape [1,2] but got: [2,1]",
    ),
    ("ragged inside", {**LARGE, "instances": [[[1, 2], [3]]]}, 400, "unexpected size: 1"),
    ("element prefix", {**LARGE, "instances": [1, 2.5]}, 400, "Failed to process element: 1"),
    (
        "float to int",
        {**LARGE, "instances": [1.5]},
        400,
        "Type: Number is not of expected type: int64",
    ),
    (
        "string to number",
        {**ODD, "instances": ["a"]},
        400,
        "Type: String is not of expected type: float",
    ),
    ("null", {**ODD, "instances": [None]}, 400, "is not of expected type: float"),
    ("bool to float", {**ODD, "instances": [True]}, 400, "is not of expected type: float"),
    ("number to bool", {"signature_name": "flags", "instances": [1]}, 400, "expected type: bool"),
    ("int to string", {"signature_name": "texts", "instances": [1]}, 400, "expected type: string"),
    (
        "half",
        {"signature_name": "half", "instances": [1.0]},
        400,
        "to type: half",
    ),
    (
        "half in a column",
        {"signature_name": "half", "inputs": [1.0]},
        501,
        "to type: half",
    ),
    ("int64 too large", {**LARGE, "instances": [1 << 70]}, 400, "expected type: int64"),
    ("bad base64", {"instances": [{"b64": "%%%"}]}, 400, "Unable to base64 decode"),
    (
        "base64 with another key",
        {"inputs": [{"b64": "AAAA", "x": 1}]},
        400,
        "not formatted correctly for base64 data",
    ),
    ("base64 for floats", {**ODD, "inputs": {"b64": "AAAA"}}, 400, "not of expected type: float"),
    (
        "missing column",
        {**MIX, "inputs": {"a": [1.0]}},
        400,
        "Missing named input: b in 'inputs' object.",
    ),
    ("plain column for two inputs", {**MIX, "inputs": [1]}, 400, "inputs is a plain value/list"),
    ("scalar output in row form", {**ODD, "instances": [1.0]}, 400, "has no shape information"),
    (
        "unequal batches",
        {**MIX, "inputs": {"a": [1.0], "b": [1, 2, 3]}},
        200,
        "",
    ),
    ("no image", {"instances": [b64(b"no image")]}, 400, ""),
    (
        "another shape",
        {"signature_name": "images", "inputs": [[1.0, 2.0]]},
        400,
        "",
    ),
]


@pytest.mark.parametrize(
    ("body", "code", "part"), [c[1:] for c in PREDICT_ERRORS], ids=[c[0] for c in PREDICT_ERRORS]
)
def test_predict_errors(server: Addresses, body: Any, code: int, part: str) -> None:
    status, document = post(server.rest, f"{M}:predict", body)
    assert status == code
    assert part in document.get("error", "")
    assert code == 200 or set(document) == {"error"}


def test_json_is_checked_before_the_model(server: Addresses) -> None:
    assert post(server.rest, "/v1/models/none:predict", "{bad")[0] == 400
    assert post(server.rest, "/v1/models/none:predict", {"signature_name": 1})[0] == 400
    status, document = post(server.rest, "/v1/models/none:predict", {})
    assert (status, document["error"]) == (404, "Servable not found for request: Latest(none)")


MISSING = [
    ("/v1/models/none:predict", 404, "Servable not found for request: Latest(none)"),
    (f"{M}/versions/7:predict", 404, "Servable not found for request: Specific(tiny, 7)"),
    (f"{M}/labels/none:predict", 400, "Unrecognized servable version label: none"),
]


@pytest.mark.parametrize(("path", "code", "message"), MISSING)
def test_missing_models(server: Addresses, path: str, code: int, message: str) -> None:
    status, document = post(server.rest, path, {"instances": [1]})
    assert (status, document["error"]) == (code, message)


RESPONSES: list[tuple[str, Any, Any]] = [
    ("bare rows", {**LARGE, "instances": [1, 2]}, {"predictions": [1, 2]}),
    ("named rows", {**LARGE, "instances": [{"x": 1}, {"x": 2}]}, {"predictions": [1, 2]}),
    ("bare column", {**LARGE, "inputs": [1, 2]}, {"outputs": [1, 2]}),
    ("named column", {**LARGE, "inputs": {"x": [1, 2], "extra": 9}}, {"outputs": [1, 2]}),
    (
        "two inputs by row",
        {**MIX, "instances": [{"a": 1, "b": 2}, {"a": 0.5, "b": 3}]},
        {"predictions": [{"sum": 3.0, "twice": 4}, {"sum": 3.5, "twice": 6}]},
    ),
    (
        "two inputs by column",
        {**MIX, "inputs": {"a": [1, 0.5], "b": [2, 3]}},
        {"outputs": {"sum": [3.0, 3.5], "twice": [4, 6]}},
    ),
    (
        "scalar by column",
        {**ODD, "inputs": [1, 2.5]},
        {"outputs": {"total": 3.5, "same": [1, 2.5]}},
    ),
    (
        "strings",
        {"signature_name": "texts", "instances": ["a", {"b64": "YsOk"}]},
        {
            "predictions": [
                {"raw_bytes": {"b64": "YQ=="}, "text": "<a>"},
                {"raw_bytes": {"b64": "YsOk"}, "text": "<bä>"},
            ]
        },
    ),
    ("booleans", {"signature_name": "flags", "instances": [True]}, {"predictions": [False]}),
    ("unknown top-level key", {**LARGE, "more": {}, "instances": [3]}, {"predictions": [3]}),
    ("base64 without padding", {"signature_name": "texts", "inputs": {"x": [{"b64": "YQ"}]}},
     {"outputs": {"raw_bytes": [{"b64": "YQ=="}], "text": ["<a>"]}}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "expected"), [c[1:] for c in RESPONSES], ids=[c[0] for c in RESPONSES]
)
def test_predict_responses(server: Addresses, body: Any, expected: Any) -> None:
    assert post(server.rest, f"{M}:predict", body) == (200, expected)


def test_whole_floats_and_special_values_as_text(server: Addresses) -> None:
    body = '{"signature_name": "odd", "inputs": [3, NaN, Infinity, -Infinity, 0.2]}'
    status, _, content = http_request(server.rest, "POST", f"{M}:predict", body)
    text = "".join(content.decode().split())
    assert status == 200
    assert '"same":[3.0,NaN,Infinity,-Infinity,0.2]' in text


def example(data: bytes) -> dict[str, Any]:
    return {"image/encoded": b64(data)}


def test_classify_and_regress(server: Addresses, images: list[bytes]) -> None:
    rows = [example(image) for image in images]
    status, document = post(
        server.rest, f"{M}:classify", {"signature_name": "classify", "examples": rows}
    )
    assert status == 200
    assert [len(row) for row in document["results"]] == [3] * len(images)
    assert [label for label, _ in document["results"][0]] == [
        "even-circle",
        "even-cross",
        "even-square",
    ]
    best = [max(score for _, score in row) for row in document["results"]]
    status, document = post(
        server.rest, f"{M}:regress", {"signature_name": "regress", "examples": rows}
    )
    assert status == 200
    assert document["results"] == pytest.approx(best)


def test_a_context_is_joined_to_each_example(server: Addresses, images: list[bytes]) -> None:
    body = {"signature_name": "regress", "context": example(images[0]), "examples": [{}, {}]}
    status, document = post(server.rest, f"{M}:regress", body)
    assert status == 200
    assert len(set(document["results"])) == 1


CLASSIFY = {"signature_name": "classify"}
EXAMPLE_ERRORS: list[tuple[str, Any, int, str]] = [
    ("no JSON", "{", 400, "JSON Parse error: "),
    ("no examples", CLASSIFY, 400, "is expected and was not found"),
    ("examples no list", {**CLASSIFY, "examples": 1}, 400, "value to be an list/array"),
    ("examples empty", {**CLASSIFY, "examples": []}, 400, "value is an empty array"),
    ("example no object", {**CLASSIFY, "examples": [1]}, 400, "Example must be JSON object"),
    ("null", {**CLASSIFY, "examples": [{"f": None}]}, 400, "unexpected JSON type: Null"),
    ("nested list", {**CLASSIFY, "examples": [{"f": [[1]]}]}, 400, "unexpected JSON type: Array"),
    ("object", {**CLASSIFY, "examples": [{"f": {"x": 1}}]}, 400, "unexpected JSON type: Object"),
    ("mixed", {**CLASSIFY, "examples": [{"f": [1, "a"]}]}, 400, "Unexpected element type"),
    ("uint64", {**CLASSIFY, "examples": [{"f": 1 << 63}]}, 400, "Only int64_t is supported"),
    (
        "unknown signature",
        {"signature_name": "x", "examples": [{}]},
        400,
        "No signature was found with the name: x",
    ),
    ("no classification", {"examples": [{}]}, 400, "Expected one or two output Tensors"),
    ("a feature of another type", {**CLASSIFY, "examples": [{"image/encoded": 1}]}, 400, ""),
]


@pytest.mark.parametrize(
    ("body", "code", "part"), [c[1:] for c in EXAMPLE_ERRORS], ids=[c[0] for c in EXAMPLE_ERRORS]
)
def test_classify_errors(server: Addresses, body: Any, code: int, part: str) -> None:
    status, document = post(server.rest, f"{M}:classify", body)
    assert status == code
    assert part in document["error"]


def test_status(server: Addresses) -> None:
    ok = {"error_code": "OK", "error_message": ""}
    newest, older = (
        {"version": str(number), "state": "AVAILABLE", "status": ok} for number in (2, 1)
    )
    for path, expected in (
        (M, [newest, older]),
        (f"{M}/versions/1", [older]),
        (f"{M}/versions/002", [newest]),
    ):
        status, _, body = http_request(server.rest, "GET", path)
        assert (status, json.loads(body)) == (200, {"model_version_status": expected})


STATUS_ERRORS = [
    ("/v1/models/none", "Could not find any versions of model none"),
    (f"{M}/versions/9", "Could not find version 9 of model tiny"),
    # A query is part of the path, and here of the name.
    (f"{M}?x=1", "Could not find any versions of model tiny?x=1"),
]


@pytest.mark.parametrize(("path", "message"), STATUS_ERRORS)
def test_status_of_missing_models(server: Addresses, path: str, message: str) -> None:
    status, _, body = http_request(server.rest, "GET", path)
    assert (status, json.loads(body)) == (404, {"error": message})


@pytest.mark.parametrize(
    ("path", "version"),
    [
        (f"{M}/metadata", "2"),
        (f"{M}/versions/1/metadata", "1"),
        (f"{M}/labels/stable/metadata", "1"),
    ],
)
def test_metadata(server: Addresses, path: str, version: str) -> None:
    status, _, body = http_request(server.rest, "GET", path)
    document = json.loads(body)
    assert status == 200
    assert document["model_spec"] == {"name": "tiny", "signature_name": "", "version": version}
    signature = document["metadata"]["signature_def"]["signature_def"]["mix"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["a"]["dtype"] == "DT_FLOAT"
    assert signature["inputs"]["a"]["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}],
        "unknown_rank": False,
    }


def test_metadata_of_a_missing_model(server: Addresses) -> None:
    status, _, body = http_request(server.rest, "GET", "/v1/models/none/metadata")
    assert status == 404
    assert json.loads(body)["error"] == "Servable not found for request: Latest(none)"
