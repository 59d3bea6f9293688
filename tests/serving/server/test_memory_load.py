"""The memory of a server under requests that are made to fill it: its peak stays below a limit."""

from __future__ import annotations

import gzip
import http.client
import io
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft_client.grpc import GrpcClient
from serving.running.runner import Addresses, running_server
from tests.serving.raw import Stubs, b64, failure, http_request, post, predict_request, until

M = "/v1/models/tiny:predict"
MB = 1 << 20
LIMIT_MB = 1024  # what --max_memory_bytes is by default
BODY_BYTES = 250 * 1000 * 1000

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def own(conformance_base: Path) -> Iterator[Addresses]:
    with running_server(conformance_base / "tiny", "tiny", "embedded") as addresses:
        yield addresses


def megabytes(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise AssertionError(name)


@pytest.fixture
def peak(own: Addresses, images: list[bytes]) -> Iterator[Callable[[], float]]:
    """Return the megabytes that the server has taken at most since the test began."""
    before = megabytes(own.pid, "VmRSS")
    Path(f"/proc/{own.pid}/clear_refs").write_text("5")  # the peak starts again
    yield lambda: megabytes(own.pid, "VmHWM") - before
    print(f"peak {megabytes(own.pid, 'VmHWM') - before:.0f} MB, "
          f"then {megabytes(own.pid, 'VmRSS') - before:.0f} MB")  # fmt: skip
    with GrpcClient(own.grpc, "tiny") as client:
        assert len(client.predict(images)) == len(images)


def test_a_few_bytes_become_no_large_tensor(own: Addresses, peak: Callable[[], float]) -> None:
    from tensorflow.core.framework import tensor_pb2

    proto = tensor_pb2.TensorProto(dtype=7)
    proto.tensor_shape.dim.add(size=1 << 24)
    stubs = Stubs(own.grpc)
    for _ in range(8):
        request = predict_request("texts", x=proto)
        assert failure(stubs.prediction.Predict, request)[0] == "INVALID_ARGUMENT"
    stubs.channel.close()
    assert peak() < 50


@pytest.mark.parametrize("part", ["{},", "[],", '"ab",', "1.5,", '{"a":1},'])
def test_inflated_json_is_not_parsed_if_it_is_too_large(
    own: Addresses, peak: Callable[[], float], part: str
) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = part.encode() * (MB // len(part))
    body = compressor.compress(b'{"signature_name": "odd", "instances": [')
    body += b"".join(compressor.compress(parts) for _ in range(250)) + compressor.flush()
    status, _, _ = http_request(own.rest, "POST", M, body, {"Content-Encoding": "gzip"})
    assert status in (400, 413)
    assert peak() < LIMIT_MB


def test_parallel_json_waits_for_memory(own: Addresses, peak: Callable[[], float]) -> None:
    text = b'{"signature_name": "odd", "instances": [[' + b"1.5," * 4_000_000 + b"1.5]]}"
    body = gzip.compress(text, 1)
    headers = {"Content-Encoding": "gzip"}
    with ThreadPoolExecutor(16) as pool:
        found = list(
            pool.map(lambda _: http_request(own.rest, "POST", M, body, headers)[0], range(16))
        )
    assert {400} <= set(found) <= {400, 504}  # rows of no batch; or too late
    assert peak() < 1.5 * LIMIT_MB


def test_refused_requests_keep_nothing(own: Addresses, peak: Callable[[], float]) -> None:
    body = b'{"signature_name": "none", "instances": ["' + b"x" * (200 * MB) + b'"]}'
    before = megabytes(own.pid, "VmRSS")
    for _ in range(8):
        assert http_request(own.rest, "POST", M, body)[0] == 400
    assert peak() < LIMIT_MB
    # The last body of 200 MB may still be on its way out when its answer arrives.
    until(lambda: megabytes(own.pid, "VmRSS") - before < 200, seconds=10)


def test_plain_bodies_in_parallel(own: Addresses, peak: Callable[[], float]) -> None:
    def send(_: int) -> int:
        host, port = own.rest.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        piece = b" " * MB
        try:
            connection.putrequest("POST", M)
            connection.putheader("Content-Length", str(BODY_BYTES))
            connection.endheaders()
            for _ in range(BODY_BYTES // MB):
                connection.send(piece)
            connection.send(b" " * (BODY_BYTES % MB))
            return connection.getresponse().status
        except ConnectionError:
            return 503  # refused before it was sent
        finally:
            connection.close()

    with ThreadPoolExecutor(24) as pool:
        assert set(pool.map(send, range(24))) <= {400, 503, 504}
    assert peak() < 2 * LIMIT_MB


def test_a_large_image_is_not_decoded(own: Addresses, peak: Callable[[], float]) -> None:
    data = io.BytesIO()
    Image.fromarray(np.zeros((10_000, 10_000), np.uint16)).save(data, "PNG", compress_level=1)
    rgba = rgba16_png(10_000, 10_000)
    for image in (data.getvalue(), rgba):
        body = {"signature_name": "guarded", "instances": [b64(image)]}
        status, document = post(own.rest, M, body)
        assert status == 400
        assert "image 0: expected at most" in document["error"]
    assert peak() < 200


def test_images_in_parallel_wait_for_memory(own: Addresses, peak: Callable[[], float]) -> None:
    image = rgba16_png(5000, 5000)
    body = {"signature_name": "guarded", "instances": [b64(image)]}
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: post(own.rest, M, body)[0], range(6)))
    assert found == [200] * 6
    assert peak() < 1.5 * LIMIT_MB


def rgba16_png(width: int, height: int) -> bytes:
    """Return a 16-bit RGBA PNG, which Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content).to_bytes(4)
        return len(content).to_bytes(4) + kind + content + checksum

    compressor = zlib.compressobj(1)
    row = b"\0" + bytes(8 * width)
    pixels = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([16, 6, 0, 0, 0])
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts
