"""Unusual requests for which the embedded server gives the statuses of TF Serving."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from serving.running.runner import Addresses
from tests.serving.raw import Stubs, failure, http_request, post, predict_request

M = "/v1/models/tiny"
LARGE = '"signature_name": "large"'
TEXTS = '"signature_name": "texts"'
ODD = '"signature_name": "odd"'
HUGE = "9" * 400


def b64_body(text: str) -> str:
    return json.dumps({"signature_name": "texts", "inputs": {"x": [{"b64": text}]}})


BODIES: list[tuple[str, str, int, str]] = [
    *(
        (f"base64 {text!r}", b64_body(text), 400, "Unable to base64 decode")
        for text in ("_-8=", "_-8", "_w==", "YQ=", "YWJj=", "YWJj==", "Y", "====", "YQ==YQ==")
    ),
    *(
        (f"base64 {text!r}", b64_body(text), 200, '"outputs"')
        for text in ("YWJj\nZGVm", "Y Q==", "YQ\t==", "YQ..", "YQ=.", "YQ", "")
    ),
    *(
        (f"{kind} row", f'{{"signature_name": "{kind}", "instances": [1]}}', 400, "UNIMPLEMENTED")
        for kind in ("half", "brain", "complex", "unsigned")
    ),
    *(
        (f"{kind} column", f'{{"signature_name": "{kind}", "inputs": [1]}}', 501, "Conversion")
        for kind in ("half", "brain", "complex", "unsigned")
    ),
    *(
        (f"number {text[:9]}", f'{{{ODD}, "inputs": [{text}]}}', 400, "Number too big to be stored")
        for text in ("1e400", "-1e400", "1e309", "1.5E+400", HUGE, f"-{HUGE}")
    ),
    ("large number, unused key", f'{{{LARGE}, "k": 1e400, "inputs": [1]}}', 400, "too big"),
    ("number close to zero", f'{{{ODD}, "inputs": [1e-400]}}', 200, '"total": 0.0'),
    ("short infinity", f'{{{ODD}, "inputs": [Inf, -Inf, -NaN]}}', 200, "[Infinity, -Infinity, N"),
    ("constants in a text", f'{{{TEXTS}, "inputs": ["Inf -NaN"], "k": Inf}}', 200, "<Inf -NaN>"),
    ("equal keys", f'{{{LARGE}, "inputs": [1], "inputs": [2]}}', 200, '"outputs": [1]'),
    ("classify, large integer",
     '{"signature_name": "classify", "examples": [{"image/encoded": 18446744073709551616}]}',
     400, "image/encoded"),
    *(
        (f"a bare {name} for two texts", f'{{"signature_name": "pair", {body}}}', 400,
         "input size does not match signature: 1!=2")
        for name, body in (
            ("text", '"inputs": "x"'), ("row", '"instances": ["x"]'),
            ("base64", '"inputs": {"b64": "eA=="}'), ("base64 row", '"instances": [{"b64": ""}]'),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "part"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES]
)
def test_bodies(server: Addresses, body: str, status: int, part: str) -> None:
    method = "classify" if "examples" in body else "predict"
    found, document = post(server.rest, f"{M}:{method}", body)
    assert found == status, document
    assert part in json.dumps(document)


SURROGATES = [
    f'{{{TEXTS}, "inputs": ["\\ude00"]}}',
    f'{{{TEXTS}, "instances": [{{"\\ude00": "a"}}]}}',
    f'{{{TEXTS}, "inputs": {{"\\ud800": "a"}}}}',
    f'{{{LARGE}, "\\ud800": 1, "inputs": [1]}}',
    '{"signature_name": "classify", "examples": [{"\\ud800": 1}]}',
    '{"signature_name": "classify", "context": {"\\udc00": "x"}, "examples": [{}]}',
    '{"signature_name": "\\udc80", "inputs": [1], "examples": [{}]}',
    '{"signature_name": "\\ud800", "inputs": [1], "examples": [{}]}',
]


@pytest.mark.parametrize("body", SURROGATES)
@pytest.mark.parametrize("method", ["predict", "classify", "regress"])
def test_half_of_a_surrogate_pair_is_no_server_error(
    server: Addresses, body: str, method: str
) -> None:
    status, _, content = http_request(server.rest, "POST", f"{M}:{method}", body)
    assert status in (200, 400)
    json.loads(content.decode("utf-8", "replace"))


STATUS = "model_version_status"
REQUESTS: list[tuple[str, str, int, str]] = [
    ("GET", f"{M}/labels/stable", 200, STATUS),
    ("GET", f"{M}/labels/unknown", 200, STATUS),
    ("GET", "/v1/models/none/labels/stable", 404, "Could not find any versions"),
    ("GET", f"{M}/METADATA", 200, STATUS),
    ("GET", f"{M}/labels/stable/Metadata", 200, STATUS),
    ("GET", f"{M}/versions/9223372036854775808", 400, "to numeric"),
    ("GET", f"{M}/versions/{'9' * 5000}", 400, "to numeric"),
    ("GET", f"{M}/versions/{'0' * 5000}1", 200, STATUS),
    ("POST", f"{M}/versions/{'9' * 5000}:predict", 400, "to numeric"),
    ("GET", "/v1/models/tiny%00", 404, ""),
    ("GET", f"{M}/labels/%00", 200, STATUS),
    ("POST", f"{M}/labels/%00:predict", 400, "label"),
    ("POST", f"{M}/labels/%ff:predict", 400, "label"),
    ("GET", "/elsewhere", 404, ""),
    ("TRACE", M, 501, ""),
    ("FOO", M, 400, ""),  # TF Serving: 501, but no such method reaches the application
    ("PROPFIND", "/elsewhere", 501, ""),
    ("OPTIONS", M, 400, ""),
    ("GET", "http://localhost:8501/v1/models/tiny", 200, STATUS),
    ("GET", "HTTP://127.0.0.1/v1/models/tiny/metadata", 200, "signature_def"),
]


@pytest.mark.parametrize(("verb", "path", "status", "part"), REQUESTS,
                         ids=[f"{verb} {path[:60]}" for verb, path, _, _ in REQUESTS])  # fmt: skip
def test_request_lines(server: Addresses, verb: str, path: str, status: int, part: str) -> None:
    found, _, body = http_request(server.rest, verb, path, b"{}" if verb == "POST" else b"")
    assert found == status, body
    assert part in body.decode()


def test_all_versions_are_the_status_of_a_label(server: Addresses) -> None:
    _, _, body = http_request(server.rest, "GET", f"{M}/labels/stable")
    assert [one["version"] for one in json.loads(body)[STATUS]] == ["2", "1"]


def test_options_with_an_origin_is_empty(server: Addresses) -> None:
    headers = {"Origin": "http://example.org"}
    status, found, body = http_request(server.rest, "OPTIONS", M, headers=headers)
    assert (status, body) == (200, b"")
    assert "access-control-allow-origin" not in found


PLAIN = json.dumps({"signature_name": "large", "inputs": [1]}).encode()
GZIPPED = gzip.compress(PLAIN, mtime=0)
ENCODED: list[tuple[str, bytes, int]] = [
    ("gzip", GZIPPED, 200),
    ("GZIP", GZIPPED, 400),
    ("deflate", zlib.compress(PLAIN), 400),
    ("x-gzip", GZIPPED, 400),
    ("br", PLAIN, 400),
    ("gzip, deflate", GZIPPED, 400),
    ("gzip", GZIPPED + b"junk", 400),
    ("gzip", GZIPPED[:-3], 400),
    ("gzip", zlib.compress(PLAIN), 400),
]


@pytest.mark.parametrize(("encoding", "body", "status"), ENCODED)
def test_encodings(server: Addresses, encoding: str, body: bytes, status: int) -> None:
    headers = {"Content-Encoding": encoding}
    assert http_request(server.rest, "POST", f"{M}:predict", body, headers)[0] == status


RAW = [
    b"POST {M}:predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"POST {M}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: +2\r\n\r\n{}",
    b"GET {M}\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET \x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET {M}%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://[/v1/models/tiny HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://x:99999999/v1/models/tiny HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET {M} HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    b"GET {M} HTTP/1.1\r\nHost: [\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",
]


@pytest.mark.parametrize("lines", RAW, ids=range(len(RAW)))
def test_malformed_http_is_no_server_error(server: Addresses, lines: bytes) -> None:
    host, port = server.rest.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(lines.replace(b"{M}", M.encode()))
        with connection.makefile("rb") as received:
            assert int(received.readline().split()[1]) in (400, 403, 404, 501)


@pytest.fixture(scope="module")
def stubs(server: Addresses) -> Iterator[Stubs]:
    found = Stubs(server.grpc)
    yield found
    found.channel.close()


def proto(dtype: str | int, shape: list[int] | None, **fields: Any) -> Any:
    """Return a TensorProto; a shape of None is of unknown rank."""
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    number = tf.as_dtype(dtype).as_datatype_enum if isinstance(dtype, str) else dtype
    result = tensor_pb2.TensorProto(dtype=number, **fields)
    for size in shape or []:
        result.tensor_shape.dim.add(size=size)
    result.tensor_shape.unknown_rank = shape is None
    return result


DT_RESOURCE, DT_VARIANT, DT_FLOAT_REF = 20, 21, 101
PARSING = "tensor parsing error: x"
REFUSED: list[tuple[str, str, Any, str]] = [
    ("300 dimensions", "odd", proto("float32", [1] * 300, float_val=[1]), PARSING),
    ("100 dimensions", "odd", proto("float32", [1] * 100, float_val=[1]), PARSING),
    ("2^62 dimensions of none", "odd", proto("float32", [0, 1 << 62]), ""),
    ("resource", "odd", proto(DT_RESOURCE, [1]), PARSING),
    ("variant", "odd", proto(DT_VARIANT, [1]), PARSING),
    ("reference", "odd", proto(DT_FLOAT_REF, [1], float_val=[1]), PARSING),
    ("unknown type", "odd", proto(9999, [1]), PARSING),
    ("2^40 elements", "odd", proto("float32", [1 << 40], float_val=[1]), PARSING),
    ("2^63 elements", "odd", proto("float32", [1 << 31, 1 << 31, 4], float_val=[1]), PARSING),
    ("2^24 strings of none", "texts", proto("string", [1 << 24]), PARSING),
    ("2^30 bytes of one value", "odd", proto("float32", [1 << 28], float_val=[1]), PARSING),
    ("bool 2", "flags", proto("bool", [2], tensor_content=b"\1\2"), PARSING),
    ("text content too short", "texts", proto("string", [2], tensor_content=b"\1\5abc"), PARSING),
    ("text content too long", "texts", proto("string", [1], tensor_content=b"\1ab"), PARSING),
    ("text content of endless lengths", "texts",
     proto("string", [1], tensor_content=b"\xff" * 40), PARSING),
    ("half content", "half", proto("float16", [2], tensor_content=b"abc"), PARSING),
    ("one part of a complex number", "complex", proto("complex64", [1], scomplex_val=[1]), PARSING),
    ("int8 out of range", "small", proto("int8", [1], int_val=[300]), PARSING),
    ("more values", "large", proto("int64", [1], int64_val=[1, 2]), PARSING),
]  # fmt: skip


@pytest.mark.parametrize(
    ("signature", "value", "part"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_tensors_that_are_refused(stubs: Stubs, signature: str, value: Any, part: str) -> None:
    code, details = failure(stubs.prediction.Predict, predict_request(signature, x=value))
    assert code == "INVALID_ARGUMENT", details
    assert part in details


ACCEPTED: list[tuple[str, str, Any, str, Any]] = [
    ("half_val of more than 16 bits", "half", proto("float16", [1], half_val=[1 << 20]), "y", [0]),
    ("half", "half", proto("float16", [2], half_val=[0x3C00]), "y", [2, 2]),
    ("bfloat16", "brain", proto("bfloat16", [1], half_val=[0x3F80]), "y", [2]),
    ("complex", "complex", proto("complex64", [1], scomplex_val=[1, 2]), "y", [2 + 4j]),
    ("uint16", "unsigned", proto("uint16", [1], int_val=[65535]), "y", [65535]),
    ("text content", "texts", proto("string", [2], tensor_content=b"\1\2abc"), "text",
     [b"<a>", b"<bc>"]),
    ("empty texts", "texts", proto("string", [3]), "text", [b"<>"] * 3),
    ("no rows", "large", proto("int64", [0]), "y", []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("signature", "value", "output", "expected"),
    [row[1:] for row in ACCEPTED],
    ids=[row[0] for row in ACCEPTED],
)
def test_tensors_that_are_accepted(
    stubs: Stubs, signature: str, value: Any, output: str, expected: Any
) -> None:
    import tensorflow as tf

    response = stubs.prediction.Predict(predict_request(signature, x=value), timeout=60)
    found = response.outputs[output]
    assert tf.make_ndarray(found).tolist() == expected
    assert not found.tensor_content
    assert signature not in ("half", "brain") or len(found.half_val) == len(expected)


def test_a_value_of_unknown_rank_is_a_scalar(stubs: Stubs) -> None:
    request = predict_request("large", x=proto("int64", None, int64_val=[1]))
    code, details = failure(stubs.prediction.Predict, request)
    assert (code, PARSING in details) == ("INVALID_ARGUMENT", False)  # the shape is unlike [-1]
    assert details.endswith("got []")


def test_default_values_and_unknown_inputs(stubs: Stubs) -> None:
    x = np.array([1.5], "float32")
    response = stubs.prediction.Predict(predict_request("scaled", x=x), timeout=60)
    assert list(response.outputs["y"].float_val) == [3.0]
    code, details = failure(stubs.prediction.Predict, predict_request("scaled", x=x, other=x))
    assert code == "INVALID_ARGUMENT"
    assert "Inputs contains invalid name" in details


METHODS = [
    *(f"/tensorflow.serving.PredictionService/{name}" for name in
      ("Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata")),
    "/tensorflow.serving.ModelService/GetModelStatus",
    "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
]  # fmt: skip
MALFORMED = [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\x0a\xff", struct.pack("<I", 1 << 31)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("message", MALFORMED)
def test_a_malformed_message_is_an_invalid_argument(
    stubs: Stubs, method: str, message: bytes
) -> None:
    code, details = failure(stubs.channel.unary_unary(method), message)
    assert code == "INVALID_ARGUMENT"
    assert "cannot be parsed as" in details


def test_a_malformed_message_to_health_and_reflection_is_no_server_error(stubs: Stubs) -> None:
    import grpc

    assert stubs.channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff", timeout=60)
    reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    try:
        list(stubs.channel.stream_stream(reflection)(iter([b"\xff"]), timeout=60))
    except grpc.RpcError as error:
        assert error.code().name == "INVALID_ARGUMENT"


def test_a_long_name_in_an_error_is_cut(stubs: Stubs) -> None:
    code, details = failure(stubs.prediction.Predict, predict_request("s" * 100_000))
    assert code == "FAILED_PRECONDITION"
    assert len(details) <= 2000


def test_a_status_by_label_has_all_versions(stubs: Stubs) -> None:
    from tensorflow_serving.apis import get_model_status_pb2

    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name, request.model_spec.version_label = "tiny", "unknown"
    response = stubs.model.GetModelStatus(request, timeout=60)
    assert [one.version for one in response.model_version_status] == [2, 1]
