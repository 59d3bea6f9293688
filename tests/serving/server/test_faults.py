"""Malicious and malformed requests: each receives its status, and the server keeps running."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shutil
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regraft_client import errors
from regraft_client.grpc import GrpcClient
from regraft_client.rest import RestClient
from serving.running.runner import Addresses, ServeOptions, running_server
from tests.serving.raw import (
    Stubs,
    b64,
    failure,
    http_request,
    post,
    predict_request,
    until,
)

LIMIT = 2_000_000
M = "/v1/models/tiny"


@pytest.fixture(scope="module")
def small(conformance_base: Path) -> Iterator[Addresses]:
    """A server with a low limit of bytes."""
    flags = (f"--max_request_bytes={LIMIT}",)
    base = conformance_base / "tiny"
    with running_server(base, "tiny", "embedded", ServeOptions(flags=flags)) as addresses:
        yield addresses


@pytest.fixture(scope="module")
def impatient(conformance_base: Path) -> Iterator[Addresses]:
    """A server that waits one second for headers and bodies."""
    flags = ("--rest_api_timeout_in_ms=1000",)
    base = conformance_base / "tiny"
    with running_server(base, "tiny", "embedded", ServeOptions(flags=flags)) as addresses:
        yield addresses


@pytest.fixture(autouse=True)
def _keeps_running(small: Addresses, images: list[bytes]) -> Iterator[None]:
    yield
    with RestClient(small.rest, "tiny") as client:
        assert len(client.predict(images)) == len(images)


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
    status, _, content = http_request(small.rest, "POST", f"{M}:{method}", body)
    assert status == 400
    assert "JSON Parse error" in json.loads(content)["error"]


def test_a_body_over_the_limit_is_413(small: Addresses) -> None:
    status, _, content = http_request(small.rest, "POST", f"{M}:predict", b"1" * (LIMIT + 1))
    assert status == 413
    assert "error" in json.loads(content)


def test_a_gzip_bomb_is_413_and_uses_no_memory(small: Addresses) -> None:
    before = resident_mb(small.pid)
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(compressor.compress(b" " * 10_000_000) for _ in range(60)) + compressor.flush()
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


def test_a_slow_body_times_out(impatient: Addresses) -> None:
    host, port = impatient.rest.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as slow:
        head = f"POST {M}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100"
        slow.sendall(f"{head}\r\n\r\n{{".encode())
        assert b" 504 " in slow.recv(1000)


@pytest.mark.parametrize(
    "start", [b"", f"POST {M}:predict HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".encode()]
)
def test_slow_headers_time_out(impatient: Addresses, start: bytes) -> None:
    host, port = impatient.rest.split(":")
    with socket.create_connection((host, int(port)), timeout=0.1) as slow:
        slow.sendall(start)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                assert slow.recv(1000) == b""
                return
            except TimeoutError:
                with contextlib.suppress(ConnectionError):
                    slow.sendall(b"x" if start else b"")  # single bytes do not keep it open
            except ConnectionError:
                return
    pytest.fail("the connection stayed open")


def test_many_slow_connections_block_no_other_client(small: Addresses, images: list[bytes]) -> None:
    host, port = small.rest.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            slow = stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
            slow.sendall(b"POST /v1/models/tiny:predict HTTP/1.1\r\n")
        with RestClient(small.rest, "tiny") as client:
            assert len(client.predict(images)) == len(images)


def test_abandoned_work_releases_its_version(
    model_base: Path, exports: dict[str, Path], images: list[bytes]
) -> None:
    """Runs that outlast their deadline end, and release their version."""
    flags = ("--file_system_poll_wait_seconds=0.1",)
    with running_server(model_base, "tiny", "embedded", ServeOptions(flags=flags)) as at:
        with GrpcClient(at.grpc, "tiny", timeout_s=0.02) as hasty:
            for _ in range(20):
                with pytest.raises(errors.DeadlineError):
                    hasty.predict(images * 2500)
        with RestClient(at.rest, "tiny", timeout_s=60) as client:
            assert len(client.predict(images)) == len(images)
            shutil.copytree(exports["even"], model_base / ".new")
            (model_base / ".new").rename(model_base / "2")
            until(lambda: [s.state for s in client.status()] == ["AVAILABLE", "END"])
            assert client.predict(images[:1])[0].label.startswith("even-")


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
    code, details = failure(stubs.prediction.Predict, predict_request("large", x=proto))
    assert code == "INVALID_ARGUMENT"
    assert details.startswith("tensor parsing error: x")
    stubs.channel.close()


def test_a_damaged_image_fails_its_request(small: Addresses, images: list[bytes]) -> None:
    body = {"instances": [b64(images[0]), b64(images[1][:40])]}
    status, document = post(small.rest, f"{M}:predict", body)
    assert status == 400
    assert document["error"]


def enormous(kind: str) -> bytes:
    """Return a small file whose header declares 65,000 x 65,000 pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    if kind == "PNG":
        data[16:24] = struct.pack(">II", 65_000, 65_000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    else:
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = struct.pack(">HH", 65_000, 65_000)
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_enormous_image_is_rejected_undecoded(
    small: Addresses, images: list[bytes], kind: str
) -> None:
    before = resident_mb(small.pid)
    batch = [images[0], enormous(kind)]
    body = {"signature_name": "guarded", "instances": [b64(one) for one in batch]}
    status, document = post(small.rest, f"{M}:predict", body)
    assert status == 400
    stubs = Stubs(small.grpc)
    code, details = failure(
        stubs.prediction.Predict, predict_request("guarded", image_bytes=np.array(batch, object))
    )
    stubs.channel.close()
    assert code == "INVALID_ARGUMENT"
    for text in (document["error"], details):
        assert "image 1: expected" in text
        assert "at most" in text
    assert resident_mb(small.pid) - before < 200


UNUSUAL_BODIES: list[Any] = [
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


@pytest.mark.parametrize("body", UNUSUAL_BODIES, ids=range(len(UNUSUAL_BODIES)))
@pytest.mark.parametrize("method", ["predict", "classify"])
def test_unusual_bodies_are_not_a_server_error(small: Addresses, body: Any, method: str) -> None:
    status, _, content = http_request(small.rest, "POST", f"{M}:{method}", body)
    assert status in (200, 400)
    json.loads(content.decode("utf-8", "replace"))


UNUSUAL_PATHS = ["/v1/models/%ff:predict", "/v1/models/%00", "/v1/models/tiny/versions/" + "9" * 30]


@pytest.mark.parametrize("path", UNUSUAL_PATHS)
def test_unusual_paths_are_not_a_server_error(small: Addresses, path: str) -> None:
    verb = "POST" if path.endswith("predict") else "GET"
    assert http_request(small.rest, verb, path, b'{"instances": [1]}')[0] in (400, 404)
