"""The Open Inference Protocol on the ports of the embedded server: REST equal to gRPC."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from regraft_client.grpc import GrpcClient
from regraft_core.runtime.version import VERSION
from serving.running.runner import Addresses
from serving.server.protocol import open_inference_pb2 as pb
from tests.serving.raw import b64, failure, http_request

M = "/v2/models/tiny"
JSON_BYTES = "Inference-Header-Content-Length"


class Stub:
    """The methods of the gRPC service on one channel."""

    def __init__(self, address: str) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(address, options)
        for name in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata",
                     "ModelInfer"):  # fmt: skip
            call = self.channel.unary_unary(
                f"/inference.GRPCInferenceService/{name}",
                lambda message: message.SerializeToString(),
                getattr(pb, f"{name}Response").FromString,
            )
            setattr(self, name, call)


@pytest.fixture(scope="module")
def stub(server: Addresses) -> Iterator[Any]:
    found = Stub(server.grpc)
    yield found
    found.channel.close()


def get(server: Addresses, path: str) -> tuple[int, Any]:
    status, _, body = http_request(server.rest, "GET", path)
    return status, json.loads(body)


def post(
    server: Addresses,
    document: Any,
    data: bytes | None = None,
    path: str = f"{M}/infer",
    compressed: bool = False,
) -> tuple[int, Any, bytes]:
    """Post a request; return the status, and the JSON and the bytes of the response."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = {} if data is None else {JSON_BYTES: str(len(body))}
    body += data or b""
    if compressed:
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    status, found, content = http_request(server.rest, "POST", path, body, headers)
    size = int(found.get(JSON_BYTES.lower(), len(content)))
    kind = "application/octet-stream" if JSON_BYTES.lower() in found else "application/json"
    assert found["content-type"].split(";")[0] == kind
    return status, json.loads(content[:size]), content[size:]


def given(
    name: str, datatype: str, shape: list[int], data: Any = None, **parameters: Any
) -> dict[str, Any]:
    value: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    if data is not None:
        value["data"] = data
    return value | ({"parameters": parameters} if parameters else {})


def asked(signature: str, *inputs: Any, outputs: Any = None, **more: Any) -> dict[str, Any]:
    parameters = {"signature_name": signature, **more.pop("parameters", {})}
    value: dict[str, Any] = {"inputs": list(inputs), "parameters": parameters, **more}
    return value | ({"outputs": outputs} if outputs is not None else {})


def lengths(values: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def message(signature: str, *inputs: Any, raw: list[bytes] | None = None, **fields: Any) -> Any:
    request = pb.ModelInferRequest(model_name="tiny", raw_input_contents=raw or [], **fields)
    request.parameters["signature_name"].string_param = signature
    for name, datatype, shape, contents in inputs:
        request.inputs.add(name=name, datatype=datatype, shape=shape, contents=contents)
    return request


def test_health_and_the_servers_metadata(server: Addresses, stub: Any) -> None:
    assert get(server, "/v2/health/live") == (200, {"live": True})
    assert get(server, "/v2/health/ready") == (200, {"ready": True})
    expected = {"name": "regraft", "version": VERSION, "extensions": ["binary_tensor_data"]}
    assert get(server, "/v2") == (200, expected)
    assert stub.ServerLive(pb.ServerLiveRequest(), timeout=60).live
    assert stub.ServerReady(pb.ServerReadyRequest(), timeout=60).ready
    found = stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=60)
    assert found == pb.ServerMetadataResponse(**expected)


METADATA = {
    "name": "tiny",
    "versions": ["1", "2"],
    "platform": "tensorflow_savedmodel",
    "inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [-1]}],
    "outputs": [
        {"name": "confidence", "datatype": "FP32", "shape": [-1]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
    ],
}


def test_the_metadata_of_a_model(server: Addresses, stub: Any) -> None:
    for version in ("1", "stable"):
        assert get(server, f"{M}/versions/{version}") == (200, METADATA)
        request = pb.ModelMetadataRequest(name="tiny", version=version)
        assert stub.ModelMetadata(request, timeout=60) == pb.ModelMetadataResponse(**METADATA)
    names = [one["name"] for one in get(server, M)[1]["outputs"]]
    assert names == ["abstain", "confidence", "familiar", "label", "label_set", "probabilities"]


@pytest.mark.parametrize("version", ["", "1", "stable", "002"])
def test_an_available_version_is_ready(server: Addresses, stub: Any, version: str) -> None:
    path = f"{M}/versions/{version}/ready" if version else f"{M}/ready"
    assert get(server, path) == (200, {"name": "tiny", "ready": True})
    assert stub.ModelReady(pb.ModelReadyRequest(name="tiny", version=version), timeout=60).ready


ABSENT = [
    ("none", "", 404, "NOT_FOUND"),
    ("tiny", "7", 404, "NOT_FOUND"),
    ("tiny", "none", 400, "INVALID_ARGUMENT"),
    ("tiny", "9223372036854775808", 400, "INVALID_ARGUMENT"),
    ("tiny", "9" * 5000, 400, "INVALID_ARGUMENT"),
    ("tiny", "-1", 400, "INVALID_ARGUMENT"),
]


@pytest.mark.parametrize(("name", "version", "status", "code"), ABSENT)
def test_what_is_not_served_is_an_error(
    server: Addresses, stub: Any, name: str, version: str, status: int, code: str
) -> None:
    path = f"/v2/models/{name}" + (f"/versions/{version}" if version else "")
    for end in ("", "/ready"):
        found, document = get(server, path + end)
        assert (found, list(document)) == (status, ["error"])
    request = {"inputs": [given("image_bytes", "BYTES", [1], ["x"])]}
    assert post(server, request, path=f"{path}/infer")[0] == status
    for call, kind in ((stub.ModelReady, pb.ModelReadyRequest),
                       (stub.ModelMetadata, pb.ModelMetadataRequest)):  # fmt: skip
        assert failure(call, kind(name=name, version=version))[0] == code
    request = message("large", ("x", "INT64", [1], pb.InferTensorContents(int64_contents=[1])))
    request.model_name, request.model_version = name, version
    assert failure(stub.ModelInfer, request)[0] == code


PATHS = [
    ("POST", "/v2"), ("POST", "/v2/health/live"), ("GET", "/v2/health"), ("GET", "/v2/models"),
    ("GET", "/v2/models/"), ("POST", M), ("GET", f"{M}/infer"), ("POST", f"{M}/ready"),
    ("POST", f"{M}/versions/infer"), ("PUT", f"{M}/infer"), ("GET", f"{M}/stats"),
    ("GET", "/v2/health/live?x=1"), ("POST", f"{M}/infer?x=1"), ("HEAD", "/v2x/health"),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "path"), PATHS)
def test_other_request_lines(server: Addresses, verb: str, path: str) -> None:
    status, _, body = http_request(server.rest, verb, path, b"{}" if verb == "POST" else b"")
    assert status == (404 if path.startswith("/v2x") else 400)
    assert verb == "HEAD" or json.loads(body) == {"error": f"Malformed request: {verb} {path}"}


def outputs_of(response: Any) -> dict[str, np.ndarray]:
    """Return the outputs of a gRPC response in either form."""
    types = {"FP32": "<f4", "INT32": "<i4", "INT64": "<i8", "BOOL": "?"}
    found = {}
    for index, output in enumerate(response.outputs):
        if not response.raw_output_contents:
            (values,) = [list(value) for _, value in output.contents.ListFields()]
            array = np.array(values, object if output.datatype == "BYTES" else None)
        elif output.datatype == "BYTES":
            content, values = response.raw_output_contents[index], []
            while content:
                size = int.from_bytes(content[:4], "little")
                values.append(content[4 : 4 + size])
                content = content[4 + size :]
            array = np.array(values, object)
        else:
            array = np.frombuffer(response.raw_output_contents[index], types[output.datatype])
        found[output.name] = array.reshape(tuple(output.shape))
    return found


def test_images_by_all_forms(server: Addresses, stub: Any, images: list[bytes]) -> None:
    with GrpcClient(server.grpc, "tiny") as client:
        expected = client.predict(images)
    labels = [one.label for one in expected]
    probabilities = np.array([one.probabilities for one in expected], "float32")

    shape = [len(images)]
    content = lengths(images)
    sent = given("image_bytes", "BYTES", shape, binary_data_size=len(content))
    status, document, rest = post(server, {"id": "42", "inputs": [sent]}, content)
    assert (status, rest) == (200, b"")
    assert {**document, "outputs": None} == {
        "id": "42", "model_name": "tiny", "model_version": "2", "outputs": None
    }  # fmt: skip
    by_json = {one["name"]: one for one in document["outputs"]}
    assert by_json["label"]["data"] == labels
    assert by_json["probabilities"]["shape"] == [len(images), 3]
    assert np.float32(by_json["probabilities"]["data"]).tolist() == probabilities.ravel().tolist()

    in_json = given("image_bytes", "BYTES", shape, [b64(image) for image in images])
    assert post(server, {"inputs": [in_json]})[1]["outputs"] == document["outputs"]

    wanted = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "label"}]
    for compressed in (False, True):
        request = {"inputs": [sent], "outputs": wanted}
        _, head, rest = post(server, request, content, compressed=compressed)
        first, second = head["outputs"]
        assert first["parameters"] == {"binary_data_size": len(rest)}
        assert np.frombuffer(rest, "<f4").tolist() == probabilities.ravel().tolist()
        assert second["data"] == labels

    raw = message("", ("image_bytes", "BYTES", shape, None), raw=[content], id="7")
    contents = pb.InferTensorContents(bytes_contents=images)
    typed = message("", ("image_bytes", "BYTES", shape, contents), model_version="canary")
    for request in (raw, typed):
        response = stub.ModelInfer(request, timeout=60)
        assert (response.model_name, response.model_version) == ("tiny", "2")
        assert response.id == request.id
        found = outputs_of(response)
        assert [one.decode() for one in found["label"]] == labels
        assert found["probabilities"].tolist() == probabilities.tolist()
        assert bool(response.raw_output_contents) == bool(request.raw_input_contents)


HALF = np.array([1.5, -2], "float16")
TYPES: list[tuple[str, str, str, np.ndarray]] = [
    ("small", "INT8", "int_contents", np.array([-128, 127], "int8")),
    ("large", "INT64", "int64_contents", np.array([-(1 << 63), 5], "int64")),
    ("unsigned", "UINT16", "uint_contents", np.array([0, 65535], "uint16")),
    ("flags", "BOOL", "bool_contents", np.array([True, False])),
    ("matrix", "FP32", "fp32_contents", np.array([[1.5, 2], [0.2, 4]], "float32")),
]


@pytest.mark.parametrize(
    ("signature", "datatype", "field", "array"), TYPES, ids=[row[1] for row in TYPES]
)
def test_each_type_in_all_forms(
    server: Addresses, stub: Any, signature: str, datatype: str, field: str, array: np.ndarray
) -> None:
    shape, raw = list(array.shape), array.tobytes()
    expected = {"flags": array == 0, "matrix": array.sum(axis=-1)}.get(signature, array)
    found = []
    parameters = {"binary_data_output": True}
    for document, data in (
        (asked(signature, given("x", datatype, shape, array.tolist())), None),
        (asked(signature, given("x", datatype, shape, array.ravel().tolist())), None),
        # The JSON is of any length, so the values are at any address.
        *((asked(signature, given("x", datatype, shape, binary_data_size=len(raw)), id="i" * n),
           raw) for n in range(2)),
        (asked(signature, given("x", datatype, shape, array.tolist()), parameters=parameters), b""),
    ):  # fmt: skip
        status, head, rest = post(server, document, data)
        assert status == 200, head
        (output,) = head["outputs"]
        assert output["shape"] == list(expected.shape)
        values = np.frombuffer(rest, expected.dtype) if rest else output["data"]
        found.append(np.array(values, expected.dtype).tolist())
    contents = pb.InferTensorContents(**{field: array.ravel().tolist()})
    for request in (
        message(signature, ("x", datatype, shape, contents)),
        message(signature, ("x", datatype, shape, None), raw=[raw]),
    ):
        response = stub.ModelInfer(request, timeout=60)
        (output,) = response.outputs
        if response.raw_output_contents:
            values = np.frombuffer(response.raw_output_contents[0], expected.dtype)
        else:
            ((_, values),) = output.contents.ListFields()
        found.append(np.array(list(values), expected.dtype).tolist())
    assert found == [expected.tolist()] * 7


@pytest.mark.parametrize(
    ("signature", "datatype", "raw"),
    [("half", "FP16", HALF.tobytes()), ("brain", "BF16", b"\xc0\x3f\x00\xc0")],
)
def test_half_precision_is_raw(
    server: Addresses, stub: Any, signature: str, datatype: str, raw: bytes
) -> None:
    sent = given("x", datatype, [2], binary_data_size=len(raw))
    parameters = {"binary_data_output": True}
    status, head, rest = post(server, asked(signature, sent, parameters=parameters), raw)
    assert (status, head["outputs"][0]["datatype"]) == (200, datatype)
    response = stub.ModelInfer(message(signature, ("x", datatype, [2], None), raw=[raw]))
    assert response.raw_output_contents[0] == rest != raw
    status, document, _ = post(server, asked(signature, sent), raw)
    assert (status, "binary_data" in document["error"]) == (400, True)
    assert post(server, asked(signature, given("x", datatype, [1], [1.5])))[0] == 501
    contents = pb.InferTensorContents(fp32_contents=[1, 2])
    request = message(signature, ("x", datatype, [2], contents))
    code, details = failure(stub.ModelInfer, request)
    assert (code, "raw_input_contents" in details) == ("INVALID_ARGUMENT", True)


X = given("x", "INT64", [2], [1, 2])
RAW = given("x", "INT64", [2], binary_data_size=16)
REFUSED: list[tuple[str, Any, bytes | None, int, str]] = [
    ("no JSON", b"{", None, 400, "JSON Parse error"),
    ("no object", b"[]", None, 400, "Is not object"),
    ("no inputs", {}, None, 400, "Missing 'inputs'"),
    ("inputs no list", {"inputs": {}}, None, 400, "inputs: expected a list"),
    ("input no object", {"inputs": [1]}, None, 400, "expected an object"),
    ("no name", {"inputs": [{"shape": [1]}]}, None, 400, "Missing 'name'"),
    ("a number as id", asked("large", X, id=1), None, 400, "id: expected a string"),
    ("no data", asked("large", given("x", "INT64", [2])), None, 400, "Missing 'data'"),
    ("data no list", asked("large", given("x", "INT64", [], 1)), None, 400, "data: expected a l"),
    ("type", asked("large", given("x", "INT99", [1], [1])), None, 400, "expected a datatype of"),
    ("other type", asked("large", given("x", "FP32", [1], [1])), None, 400, "to be int64 but"),
    ("fraction", asked("large", given("x", "INT64", [1], [1.5])), None, 400, "input x: JSON Value"),
    ("count", asked("large", given("x", "INT64", [3], [1, 2])), None, 400, "expected 3 values"),
    ("nesting", asked("matrix", given("x", "FP32", [1, 4], [[1, 2], [3, 4]])), None, 400, "flat"),
    ("negative size", asked("large", given("x", "INT64", [-1], [1])), None, 400, "0 or more"),
    ("text as size", asked("large", given("x", "INT64", ["1"], [1])), None, 400, "integers"),
    ("true as size", asked("large", given("x", "INT64", [True], [1])), None, 400, "integers"),
    ("65 dimensions", asked("large", given("x", "INT64", [1] * 65, [1])), None, 400, "at most 64"),
    ("2^62", asked("large", given("x", "INT64", [1 << 62, 0], [])), None, 400, "takes more than"),
    ("rank", asked("large", given("x", "INT64", [1, 2], [1, 2])), None, 400, "expected shape [?]"),
    ("twice", asked("large", X, X), None, 400, "duplicate input: x"),
    ("other input", asked("large", given("z", "INT64", [1], [1])), None, 400, "alias: x"),
    ("two inputs", asked("large", X, given("z", "INT64", [1], [1])), None, 400, "input size does"),
    ("signature", asked("none", X), None, 400, 'signature key "none" not found'),
    ("output", asked("large", X, outputs=[{"name": "z"}]), None, 400, "alias not found"),
    ("output twice", asked("large", X, outputs=[{"name": "y"}] * 2), None, 400, "duplicate output"),
    ("classes", asked("large", X, outputs=[{"name": "y", "parameters": {"classification": 3}}]),
     None, 501, "classification is not supported"),
    ("shared memory", asked("large", given("x", "INT64", [2], shared_memory_region="r")),
     None, 501, "shared_memory_region is not supported"),
    ("a large UINT16", asked("unsigned", given("x", "UINT16", [1], [65536])), None, 400,
     "expected at most 65535"),
    ("complex", asked("complex", given("x", "FP32", [1], [1])), None, 400, "to be complex64"),
    ("no image", {"inputs": [given("image_bytes", "BYTES", [1], ["no"])]}, None, 400, ""),
    ("no data after it", asked("large", RAW), b"", 400, "0 bytes that are left"),
    ("too little data", asked("large", RAW), b"1" * 15, 400, "15 bytes that are left"),
    ("too much data", asked("large", RAW), b"1" * 17, 400, "1 bytes after the JSON"),
    ("data of no input", asked("large", X), b"1", 400, "belong to no input"),
    ("size of data", asked("large", given("x", "INT64", [3], binary_data_size=16)), b"1" * 16,
     400, "expected 24 bytes"),
    ("data twice", asked("large", given("x", "INT64", [2], [1, 2], binary_data_size=16)),
     b"1" * 16, 400, "expected data, or an integer"),
    ("a text as size of data", asked("large", given("x", "INT64", [2], binary_data_size="16")),
     b"1" * 16, 400, "expected data, or an integer"),
    ("negative size of data", asked("large", given("x", "INT64", [2], binary_data_size=-1)),
     b"1" * 16, 400, "got -1"),
    ("bool 2", asked("flags", given("x", "BOOL", [1], binary_data_size=1)), b"\2", 400, "0 or 1"),
    ("a long value", asked("texts", given("x", "BYTES", [1], binary_data_size=6)),
     b"\3\0\0\0ab", 400, "longer than the data"),
    ("half a length", asked("texts", given("x", "BYTES", [1], binary_data_size=7)),
     b"\1\0\0\0a\0\0", 400, "longer than the data"),
    ("2^28 values", asked("texts", given("x", "BYTES", [1 << 28], binary_data_size=5)),
     b"\1\0\0\0a", 400, "expected the lengths of"),
    ("more values", asked("texts", given("x", "BYTES", [1], binary_data_size=8)),
     b"\0" * 8, 400, "expected 1 values"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "data", "status", "part"), [row[1:] for row in REFUSED],
    ids=[row[0] for row in REFUSED],
)  # fmt: skip
def test_requests_that_are_refused(
    server: Addresses, document: Any, data: bytes | None, status: int, part: str
) -> None:
    found, error, _ = post(server, document, data)
    assert found == status, error
    assert part in error["error"]


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 30, "²", "", "100000"])
def test_a_size_of_the_json_that_is_none(server: Addresses, value: str) -> None:
    headers = {JSON_BYTES: value.encode("utf-8").decode("latin-1")}
    body = json.dumps(asked("large", X))
    status, _, content = http_request(server.rest, "POST", f"{M}/infer", body, headers)
    assert status == 400
    assert "bytes" in json.loads(content)["error"]


def test_bytes_that_are_not_text_are_returned_as_binary_data(server: Addresses) -> None:
    sent = given("x", "BYTES", [1], binary_data_size=5)
    outputs = [{"name": "raw_bytes", "parameters": {"binary_data": True}}]
    data = b"\1\0\0\0\xff"
    status, _, rest = post(server, asked("texts", sent, outputs=outputs), data)
    assert (status, rest) == (200, data)
    status, document, _ = post(server, asked("texts", sent), data)
    assert (status, "binary_data" in document["error"]) == (400, True)


def test_scalars_and_empty_tensors(server: Addresses) -> None:
    _, document, _ = post(server, asked("odd", given("x", "FP32", [2], [1, 2.5])))
    shapes = {one["name"]: (one["shape"], one["data"]) for one in document["outputs"]}
    assert shapes == {"same": ([2], [1.0, 2.5]), "total": ([], [3.5])}
    parameters = {"binary_data_output": True}
    empty = given("x", "INT64", [0], [])
    status, document, rest = post(server, asked("large", empty, parameters=parameters))
    assert (status, rest) == (200, b"")
    assert document["outputs"][0]["parameters"] == {"binary_data_size": 0}


def test_default_values(server: Addresses, stub: Any) -> None:
    _, document, _ = post(server, asked("scaled", given("x", "FP32", [1], [1.5])))
    assert document["outputs"][0]["data"] == [3.0]
    contents = pb.InferTensorContents(fp32_contents=[1.5])
    response = stub.ModelInfer(message("scaled", ("x", "FP32", [1], contents)), timeout=60)
    assert outputs_of(response)["y"].tolist() == [3.0]


LARGE = pb.InferTensorContents(int64_contents=[1, 2])
MESSAGES: list[tuple[str, Callable[[], Any], str]] = [
    ("no contents", lambda: message("large", ("x", "INT64", [2], None)), "expected 2 values"),
    ("another field", lambda: message(
        "large", ("x", "INT64", [2], pb.InferTensorContents(int_contents=[1, 2]))),
     "expected 2 values"),
    ("both", lambda: message("large", ("x", "INT64", [2], LARGE), raw=[b"1" * 16]), "got both"),
    ("raw of another input", lambda: message("large", ("x", "INT64", [2], None), raw=[b""] * 2),
     "of all 1 inputs, got 2"),
    ("raw size", lambda: message("large", ("x", "INT64", [2], None), raw=[b"1" * 15]),
     "expected 16 bytes"),
    ("out of range", lambda: message(
        "small", ("x", "INT8", [1], pb.InferTensorContents(int_contents=[300]))), "input x"),
    ("twice", lambda: message("large", *[("x", "INT64", [2], LARGE)] * 2), "duplicate input"),
    ("negative size", lambda: message("large", ("x", "INT64", [-2], LARGE)), "0 or more"),
    ("2^62", lambda: message("large", ("x", "INT64", [0, 1 << 62], None)), "takes more"),
    ("no model", lambda: pb.ModelInferRequest(), "no name specified"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "part"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES]
)
def test_messages_that_are_refused(stub: Any, make: Callable[[], Any], part: str) -> None:
    code, details = failure(stub.ModelInfer, make())
    assert (code, part in details) == ("INVALID_ARGUMENT", True), details


def test_the_service_is_found_by_reflection_and_health(server: Addresses) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    name = "inference.GRPCInferenceService"
    with grpc.insecure_channel(server.grpc) as channel:
        status = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=name), timeout=60
        )
        assert status.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)
        (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=60)
        assert answer.file_descriptor_response.file_descriptor_proto


def test_a_foreign_page_is_refused(server: Addresses) -> None:
    for headers in ({"Host": "example.org"}, {"Origin": "http://example.org"}):
        for verb, path in (("GET", "/v2/health/live"), ("POST", f"{M}/infer")):
            body = b"{}" if verb == "POST" else b""
            assert http_request(server.rest, verb, path, body, headers)[0] == 403
