"""A server with little memory: clients that leave cancel requests, and messages are limited."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from serving.running.runner import Addresses, ServeOptions, running_server
from serving.server.ports.reception import AT_A_TIME
from tests.serving.raw import Stubs, failure, http_request, predict_request, until

SIDE = 1000
MEMORY_BYTES = 40 * SIDE * SIDE
LEAVING, IMAGES = 3, 150
TENSOR = {"name": "x", "datatype": "INT64", "shape": [1], "data": [1]}
PREDICT = ("/v1/models/tiny:predict", json.dumps({"signature_name": "large", "inputs": [1]}))
INFER = (
    "/v2/models/tiny/infer",
    json.dumps({"parameters": {"signature_name": "large"}, "inputs": [TENSOR]}),
)


@pytest.fixture(scope="module")
def narrow(conformance_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """A server with memory for one request with large images at a time, and metrics."""
    config = tmp_path_factory.mktemp("config") / "monitoring.config"
    config.write_text('prometheus_config { enable: true path: "/metrics" }')
    flags = (f"--max_memory_bytes={MEMORY_BYTES}", f"--monitoring_config_file={config}")
    base = conformance_base / "tiny"
    with running_server(base, "tiny", "embedded", ServeOptions(flags=flags)) as addresses:
        yield addresses


def metric(server: Addresses, name: str) -> int:
    """Return the sum of the metrics of a name."""
    text = http_request(server.rest, "GET", "/metrics")[2].decode()
    return sum(map(int, re.findall(rf"^:tensorflow:serving:{name} (\d+)$", text, re.MULTILINE)))


RUNS = r"runtime_latency_count\{.*\}"
CANCELLED = r'request_count\{.*status="CANCELLED".*\}'


def waits(server: Addresses) -> bool:
    """Return whether a request waits for memory: one that fails when it is parsed."""
    host, port = server.rest.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=0.3)
    with contextlib.closing(connection):
        body = json.dumps({"signature_name": "none", "inputs": [1]})
        connection.request("POST", "/v1/models/tiny:predict", body)
        try:
            connection.getresponse()
        except TimeoutError:
            return True
    return False


def test_requests_of_clients_that_leave_are_not_run(narrow: Addresses) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE)).save(buffer, "PNG")
    large = predict_request("guarded", image_bytes=np.array([buffer.getvalue()] * IMAGES, object))
    before = metric(narrow, RUNS)
    cancelled = metric(narrow, CANCELLED)
    stubs = Stubs(narrow.grpc)
    running = stubs.prediction.Predict.future(large, timeout=120)
    until(lambda: waits(narrow))
    cancelled += 1  # the last of these
    host, port = narrow.rest.split(":")
    for _ in range(LEAVING):
        for path, body in (PREDICT, INFER):
            with socket.create_connection((host, int(port)), timeout=60) as leaving:
                head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
                leaving.sendall(f"{head}\r\n\r\n{body}".encode())
        call = stubs.prediction.Predict.future(predict_request("large", x=np.array([1])))
        call.cancel()
    until(lambda: metric(narrow, CANCELLED) >= cancelled + 2 * LEAVING)
    assert len(running.result().outputs["mean"].float_val) == IMAGES
    response = stubs.prediction.Predict(predict_request("large", x=np.array([5])), timeout=60)
    assert list(response.outputs["y"].int64_val) == [5]
    assert metric(narrow, RUNS) == before + 2
    stubs.channel.close()


def test_the_largest_message_is_a_part_of_the_memory(narrow: Addresses) -> None:
    stubs = Stubs(narrow.grpc)
    largest = MEMORY_BYTES // AT_A_TIME
    request = predict_request("large", x=np.zeros(largest // 8 - 50, np.int64))
    assert len(stubs.prediction.Predict(request, timeout=60).outputs["y"].int64_val)
    request = predict_request("large", x=np.zeros(largest // 8, np.int64))
    code, details = failure(stubs.prediction.Predict, request)
    assert (code, f"larger than max ({request.ByteSize()} vs. {largest})" in details) == (
        "RESOURCE_EXHAUSTED", True
    )  # fmt: skip
    stubs.channel.close()


def test_messages_that_wait_take_little_memory(narrow: Addresses) -> None:
    values = np.zeros((1, MEMORY_BYTES // AT_A_TIME // 4 - 50), np.float32)
    message = predict_request("matrix", x=values).SerializeToString()
    messages = 300
    before = resident_mb(narrow.pid, "VmRSS")
    Path(f"/proc/{narrow.pid}/clear_refs").write_text("5")  # the peak starts again
    with grpc.insecure_channel(narrow.grpc) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        calls = [call.future(message, timeout=120) for _ in range(messages)]
        codes = {one.code().name for one in calls}
    assert {"OK"} <= codes <= {"OK", "UNAVAILABLE"}
    assert resident_mb(narrow.pid, "VmHWM") - before < 400 < messages * len(message) >> 20


def resident_mb(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) >> 10
    raise AssertionError(name)
