"""Whatever a client sends, the REST port sends no 5xx but 501 and 503, and keeps running."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.running.runner import Addresses

NAMES = ["serving_default", "images", "classify", "regress", "features", "mix", "odd", "texts",
         "flags", "half", "small", "large", "pair", "scaled", "brain", "none"]  # fmt: skip
KEYS = ["instances", "inputs", "signature_name", "examples", "context", "b64", "x", "a", "b",
        "image_bytes", "image/encoded"]  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.characters(categories=["Cs"])  # halves of surrogate pairs
    | st.sampled_from(NAMES)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text(max_size=3) | st.characters(categories=["Cs"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "signature_name": st.sampled_from(NAMES) | scalars,
        "instances": st.lists(values, max_size=4) | values,
        "inputs": values,
        "examples": st.lists(values, max_size=4) | values,
        "context": values,
    },
)
bodies = (
    requests.map(lambda value: json.dumps(value).encode())
    | requests.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    | values.map(lambda value: json.dumps(value).encode())
    | st.text('{}[]:,"\\\\udIn.fe+-019 b64xinstacpu', max_size=60).map(str.encode)
    | st.binary(max_size=200)
)
methods = st.sampled_from(["predict", "classify", "regress"])


DATATYPES = ["BOOL", "UINT8", "UINT16", "INT8", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES"]
sizes = st.sampled_from([0, 1, 2, 3, -1, 1 << 20, 1 << 62, 1 << 70]) | scalars
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(KEYS) | scalars,
        "datatype": st.sampled_from(DATATYPES) | scalars,
        "shape": st.lists(sizes, max_size=4) | values,
        "data": st.lists(values, max_size=4) | values,
        "parameters": st.fixed_dictionaries(
            {},
            optional={
                "binary_data_size": st.integers(-1, 40) | scalars,
                "binary_data": st.booleans() | scalars,
            },
        )
        | values,
    },
)
inferences = st.fixed_dictionaries(
    {},
    optional={
        "id": scalars,
        "inputs": st.lists(tensors, max_size=3) | values,
        "outputs": st.lists(tensors, max_size=3) | values,
        "parameters": st.fixed_dictionaries(
            {},
            optional={
                "signature_name": st.sampled_from(NAMES) | scalars,
                "binary_data_output": st.booleans() | scalars,
            },
        )
        | values,
    },
)
documents = inferences.map(lambda value: json.dumps(value).encode()) | bodies
paths = st.sampled_from(["/v2/models/tiny/infer", "/v2/models/tiny/versions/stable/infer"])


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def quick(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def fuzz(server: Addresses, examples: int) -> None:
    connection = connect(server)

    @quick(examples)
    @given(body=bodies, method=methods)
    def send(body: bytes, method: str) -> None:
        check(connection, f"/v1/models/tiny:{method}", body)

    send()
    connection.close()


def fuzz_open_inference(server: Addresses, examples: int) -> None:
    connection = connect(server)

    @quick(examples)
    @given(path=paths, document=documents, data=st.none() | st.binary(max_size=40), off=sizes)
    def send(path: str, document: bytes, data: bytes | None, off: object) -> None:
        if data is None:
            return check(connection, path, document)
        size = str(len(document) if off == 0 else off).encode("utf-8", "replace").strip()
        printable = bytes(byte for byte in size if 32 <= byte < 127)
        return check(connection, path, document + data, {JSON_BYTES: printable.decode()})

    send()
    connection.close()


JSON_BYTES = "Inference-Header-Content-Length"


def connect(server: Addresses) -> http.client.HTTPConnection:
    host, port = server.rest.rsplit(":", 1)
    return http.client.HTTPConnection(host, int(port), timeout=60)


def check(
    connection: http.client.HTTPConnection,
    path: str,
    body: bytes,
    headers: dict[str, str] | None = None,
) -> None:
    """Post a body; the response has JSON and no other status than 501 and 503 above 499."""
    connection.request("POST", path, body, headers or {})
    response = connection.getresponse()
    text = response.read()
    assert response.status < 500 or response.status in (501, 503), text
    size = int(response.getheader(JSON_BYTES, len(text)))
    json.loads(text[:size].decode("utf-8", "replace"))


def test_some_bodies(server: Addresses) -> None:
    fuzz(server, 300)
    fuzz_open_inference(server, 300)


@pytest.mark.long(seconds=45)
def test_many_bodies_in_bounded_memory(server: Addresses) -> None:
    fuzz(server, 1000)
    before = resident_mb(server.pid)
    fuzz(server, 3000)
    fuzz_open_inference(server, 3000)
    assert resident_mb(server.pid) - before < 100
