"""Hostile and unlucky requests: each gets its status, and the server lives on."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.client.rest import RestClient
from serving.runner import Addresses, ServeOptions, running_server
from tests.serving.raw import Stubs, b64, failure, http_request, post, predict_request

LIMIT = 2_000_000
M = "/v1/models/tiny"


@pytest.fixture(scope="module")
def small(conformance_base: Path) -> Iterator[Addresses]:
    """A server with low limits."""
    flags = (f"--max_request_bytes={LIMIT}", "--rest_api_timeout_in_ms=1000")
    base = conformance_base / "tiny"
    with running_server(base, "tiny", "embedded", ServeOptions(flags=flags)) as addresses:
        yield addresses


@pytest.fixture(autouse=True)
def _lives_on(small: Addresses, pictures: list[bytes]) -> Iterator[None]:
    yield
    with RestClient(small.rest, "tiny") as client:
        assert len(client.predict(pictures)) == len(pictures)


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


NESTED = [
    b'{"instances": ' + b"[" * 60_000 + b"]" * 60_000 + b"}",
    b'{"instances": ' + b"[" * 60_000,
    b'{"a":' * 60_000 + b"1" + b"}" * 60_000,
    b"[" * 60_000,
    b'{"instances": ' + b"[" * 100 + b"1" + b"]" * 100 + b"}",
]


@pytest.mark.parametrize("body", NESTED, ids=range(len(NESTED)))
@pytest.mark.parametrize("method", ["predict", "classify", "regress"])
def test_deep_nesting_is_400(small: Addresses, body: bytes, method: str) -> None:
    status, _, answer = http_request(small.rest, "POST", f"{M}:{method}", body)
    assert status == 400
    assert "JSON Parse error" in json.loads(answer)["error"]


def test_a_body_over_the_limit_is_413(small: Addresses) -> None:
    status, _, answer = http_request(small.rest, "POST", f"{M}:predict", b"1" * (LIMIT + 1))
    assert status == 413
    assert "error" in json.loads(answer)


def test_a_gzip_bomb_is_413_and_takes_no_memory(small: Addresses) -> None:
    before = resident_mb(small.pid)
    squeezer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(squeezer.compress(b" " * 10_000_000) for _ in range(60)) + squeezer.flush()
    assert len(bomb) < LIMIT
    headers = {"Content-Encoding": "gzip"}
    status, _, _ = http_request(small.rest, "POST", f"{M}:predict", bomb, headers)
    assert status == 413
    assert resident_mb(small.pid) - before < 200


@pytest.mark.parametrize(
    "body", [b"no gzip", gzip.compress(b"{}", mtime=0)[:-6]], ids=["other", "cut"]
)
def test_damaged_gzip_is_400(small: Addresses, body: bytes) -> None:
    headers = {"Content-Encoding": "gzip"}
    assert http_request(small.rest, "POST", f"{M}:predict", body, headers)[0] == 400


def test_a_slow_sender_is_cut_off(small: Addresses) -> None:
    host, port = small.rest.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as slow:
        slow.sendall(
            f"POST {M}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode()
        )
        assert b" 504 " in slow.recv(1000)


def test_an_oversized_message_is_resource_exhausted(small: Addresses) -> None:
    stubs = Stubs(small.grpc)
    request = predict_request("large", x=np.zeros(LIMIT // 8 + 10, np.int64))
    assert failure(stubs.prediction.Predict, request)[0] == "RESOURCE_EXHAUSTED"
    stubs.channel.close()


def test_a_tensor_that_would_fill_the_memory(small: Addresses) -> None:
    from tensorflow.core.framework import tensor_pb2

    proto = tensor_pb2.TensorProto(dtype=9, int64_val=[1])
    for size in (1 << 20, 1 << 20):
        proto.tensor_shape.dim.add(size=size)
    stubs = Stubs(small.grpc)
    code, _ = failure(stubs.prediction.Predict, predict_request("large", x=proto))
    assert code == "RESOURCE_EXHAUSTED"
    stubs.channel.close()


def test_a_damaged_picture_fails_its_request(small: Addresses, pictures: list[bytes]) -> None:
    body = {"instances": [b64(pictures[0]), b64(pictures[1][:40])]}
    status, answer = post(small.rest, f"{M}:predict", body)
    assert status == 400
    assert answer["error"]


ODD_BODIES: list[Any] = [
    b"\xff\xfe\x00",
    b'{"instances": ["\xff\xfe"], "signature_name": "texts"}',
    '{"instances": ["\\ud800"], "signature_name": "texts"}',
    '{"signature_name": "\\ud800", "instances": [1]}',
    '{"instances": [1' + "0" * 5000 + '], "signature_name": "odd"}',
    '{"instances": [1e999], "signature_name": "odd"}',
    '{"instances": [[]], "signature_name": "odd"}',
    '{"inputs": [], "signature_name": "odd"}',
    '{"inputs": {}, "signature_name": "odd"}',
    '{"inputs": null}',
    '{"instances": [{}], "signature_name": "odd"}',
    '{"instances": [{"b64": 1}]}',
    '{"examples": [{"\\ud800": 1}], "signature_name": "classify"}',
    '{"examples": [{"x": 1e400}], "signature_name": "classify"}',
]


@pytest.mark.parametrize("body", ODD_BODIES, ids=range(len(ODD_BODIES)))
@pytest.mark.parametrize("method", ["predict", "classify"])
def test_odd_bodies_are_no_server_error(small: Addresses, body: Any, method: str) -> None:
    status, _, answer = http_request(small.rest, "POST", f"{M}:{method}", body)
    assert status in (200, 400)
    json.loads(answer.decode("utf-8", "replace"))


ODD_PATHS = ["/v1/models/%ff:predict", "/v1/models/%00", "/v1/models/tiny/versions/" + "9" * 30]


@pytest.mark.parametrize("path", ODD_PATHS)
def test_odd_paths_are_no_server_error(small: Addresses, path: str) -> None:
    verb = "POST" if path.endswith("predict") else "GET"
    assert http_request(small.rest, verb, path, b'{"instances": [1]}')[0] in (400, 404)
