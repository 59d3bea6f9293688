"""Versions are added, fail to load and are removed while requests are served."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from regraft_client.grpc import GrpcClient
from regraft_client.rest import RestClient
from serving.running.runner import Addresses, ServeOptions, running_server, started_server
from tests.serving.raw import Stubs, b64, failure, http_request, predict_request, until

FAST = ServeOptions(flags=("--file_system_poll_wait_seconds=0.1",))


def publish(source: Path, target: Path) -> None:
    """Copy to a hidden folder and rename, as the publisher does."""
    staging = target.parent / f".publishing-{target.name}"
    shutil.copytree(source, staging)
    staging.rename(target)


def states(client: RestClient) -> dict[int, str]:
    return {status.version: status.state for status in client.status()}


def test_a_new_version_takes_over(
    model_base: Path, exports: dict[str, Path], images: list[bytes]
) -> None:
    with (
        running_server(model_base, "tiny", "embedded", FAST) as at,
        RestClient(at.rest, "tiny") as c,
    ):
        assert c.predict(images[:1])[0].label.startswith("odd-")
        publish(exports["even"], model_base / "2")
        until(lambda: states(c) == {2: "AVAILABLE", 1: "END"})
        assert c.predict(images[:1])[0].label.startswith("even-")


def write_damaged(kind: str, folder: Path, source: Path) -> None:
    shutil.copytree(source, folder)
    if kind == "no variables":
        shutil.rmtree(folder / "variables")
    elif kind == "no graph":
        (folder / "saved_model.pb").write_bytes(b"\x00nonsense")
    elif kind == "truncated":
        (data,) = (folder / "variables").glob("variables.data*")
        data.write_bytes(data.read_bytes()[:20])
    elif kind == "bad warm-up":
        extra = folder / "assets.extra"
        extra.mkdir()
        (extra / "tf_serving_warmup_requests").write_bytes(b"no record at all")


@pytest.mark.parametrize("kind", ["no variables", "no graph", "truncated", "bad warm-up"])
def test_a_damaged_version_changes_nothing_and_can_be_replaced(
    model_base: Path, exports: dict[str, Path], images: list[bytes], kind: str, tmp_path: Path
) -> None:
    with (
        running_server(model_base, "tiny", "embedded", FAST) as at,
        RestClient(at.rest, "tiny") as c,
    ):
        write_damaged(kind, tmp_path / "bad", exports["even"])
        (tmp_path / "bad").rename(model_base / "2")
        until(lambda: states(c) == {2: "END", 1: "AVAILABLE"})
        newest = c.status()[0]
        assert newest.error_code != "OK"
        assert newest.error_message
        assert c.predict(images[:1])[0].label.startswith("odd-")
        shutil.rmtree(model_base / "2")
        publish(exports["even"], model_base / "2")
        until(lambda: states(c) == {2: "AVAILABLE", 1: "END"})


def test_a_deleted_version_is_still_served(model_base: Path, images: list[bytes]) -> None:
    with (
        running_server(model_base, "tiny", "embedded", FAST) as at,
        RestClient(at.rest, "tiny") as c,
    ):
        shutil.rmtree(model_base / "1")
        until(lambda: "gone" in c.status()[0].error_message)
        assert c.predict(images[:1])[0].label.startswith("odd-")


def swap_under_load(
    base: Path,
    exports: dict[str, Path],
    images: list[bytes],
    swaps: int,
    callers: int,
    per_swap: int,
) -> int:
    """Publish versions while requests run; return the number of requests."""
    problems: list[str] = []
    counts = [0] * callers
    done = threading.Event()

    def call(number: int, address: str) -> None:
        import tensorflow as tf

        stubs = Stubs(address)
        request = predict_request("", image_bytes=tf.constant([images[number % 4]]).numpy())
        while not done.is_set():
            try:
                response = stubs.prediction.Predict(request, timeout=60)
                label = response.outputs["label"].string_val[0].decode()
                version = response.model_spec.version.value
                if not label.startswith("odd" if version % 2 else "even"):
                    problems.append(f"{version}: {label}")
            except Exception as error:
                problems.append(repr(error))
            counts[number] += 1
        stubs.channel.close()

    with running_server(base, "tiny", "embedded", FAST) as at, RestClient(at.rest, "tiny") as c:
        threads = [threading.Thread(target=call, args=(n, at.grpc)) for n in range(callers)]
        for thread in threads:
            thread.start()
        try:
            for number in range(2, swaps + 2):
                publish(exports["odd" if number % 2 else "even"], base / str(number))
                until(lambda n=number: states(c).get(n) == "AVAILABLE")
                enough = (number - 1) * per_swap
                until(lambda minimum=enough: sum(counts) >= minimum or bool(problems), 300)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert problems == []
    return sum(counts)


def test_swaps_under_load_fail_no_request(
    model_base: Path, exports: dict[str, Path], images: list[bytes]
) -> None:
    assert swap_under_load(model_base, exports, images, swaps=2, callers=4, per_swap=20) >= 40


@pytest.mark.long
def test_ten_swaps_under_heavy_load(
    model_base: Path, exports: dict[str, Path], images: list[bytes]
) -> None:
    assert swap_under_load(model_base, exports, images, swaps=10, callers=16, per_swap=300) >= 3000


def reload_request(*models: tuple[str, Path, dict[str, int]]) -> Any:
    from tensorflow_serving.apis import model_management_pb2

    request = model_management_pb2.ReloadConfigRequest()
    for name, path, labels in models:
        entry = request.config.model_config_list.config.add(
            name=name, base_path=str(path), model_platform="tensorflow"
        )
        for label, version in labels.items():
            entry.version_labels[label] = version
    request.config.model_config_list.SetInParent()
    return request


def test_reload_is_declarative(
    model_base: Path, exports: dict[str, Path], tmp_path: Path, images: list[bytes]
) -> None:
    publish_to = tmp_path / "other"
    publish_to.mkdir()
    publish(exports["even"], publish_to / "5")
    options = ServeOptions(flags=(f"--allow_reload_under={tmp_path}",))
    with running_server(model_base, "tiny", "embedded", options) as at:
        stubs = Stubs(at.grpc)
        handle = stubs.model.HandleReloadConfigRequest
        both = [("tiny", model_base, {"stable": 1}), ("other", publish_to, {})]
        handle(reload_request(*both), timeout=60)
        with (
            GrpcClient(at.grpc, "other") as other,
            GrpcClient(at.grpc, "tiny", label="stable") as s,
        ):
            assert other.predict(images[:1])[0].label.startswith("even-")
            assert s.predict(images[:1])[0].label.startswith("odd-")
        for models, code, part in (
            ([("a", tmp_path, {}), ("a", tmp_path, {})], "INVALID_ARGUMENT", "multiple times"),
            ([("a", Path("relative"), {})], "INVALID_ARGUMENT", "to have an absolute path"),
            ([("a", Path("/"), {})], "PERMISSION_DENIED", "is not below"),
            (
                [("tiny", model_base, {"canary": 9})],
                "FAILED_PRECONDITION",
                "Request to assign label to version 9 of model tiny, which is not currently "
                "available for inference",
            ),
        ):
            found, details = failure(handle, reload_request(*models))
            assert found == code
            assert part in details
        handle(reload_request(("other", publish_to, {})), timeout=60)
        assert failure(stubs.prediction.Predict, predict_request("large"))[0] == "NOT_FOUND"
        stubs.channel.close()


def test_reload_is_off_unless_allowed(server: Addresses) -> None:
    if server.engine == "external":
        pytest.skip("TF Serving allows it")
    stubs = Stubs(server.grpc)
    assert (
        failure(stubs.model.HandleReloadConfigRequest, reload_request())[0] == "PERMISSION_DENIED"
    )
    stubs.channel.close()


def test_health_and_reflection(server: Addresses) -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
        ProtoReflectionDescriptorDatabase,
    )

    with grpc.insecure_channel(server.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        response = stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert response.status == health_pb2.HealthCheckResponse.SERVING
        names = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert "tensorflow.serving.PredictionService" in names


def test_metrics_under_tf_servings_names(model_base: Path, tmp_path: Path) -> None:
    monitoring = tmp_path / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/metrics" }')
    options = ServeOptions(flags=(f"--monitoring_config_file={monitoring}",))
    with running_server(model_base, "tiny", "embedded", options) as at:
        body = json.dumps({"signature_name": "large", "instances": [1]})
        http_request(at.rest, "POST", "/v1/models/tiny:predict", body)
        http_request(at.rest, "POST", "/v1/models/tiny:predict", "{")
        text = http_request(at.rest, "GET", "/metrics")[2].decode()
    assert ':tensorflow:serving:request_count{model_name="tiny",status="OK"} 1' in text
    counted = ":tensorflow:serving:request_count"
    assert f'{counted}{{model_name="tiny",status="INVALID_ARGUMENT"}} 1' in text
    labels = 'model_name="tiny",API="predict",entrypoint="REST"'
    assert f":tensorflow:serving:request_latency_count{{{labels}}} 1" in text
    assert f':tensorflow:serving:request_latency_bucket{{{labels},le="+Inf"}} 1' in text
    assert ":tensorflow:serving:runtime_latency_count" in text


def test_sigterm_completes_requests_in_progress_and_exits_with_0(
    model_base: Path, images: list[bytes]
) -> None:
    counts: list[int] = []
    body = json.dumps({"inputs": [b64(p) for p in images * 200]}).encode()
    with running_server(model_base, "tiny", "embedded") as at:
        host, port = at.rest.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as sending:
            head = "POST /v1/models/tiny:predict HTTP/1.1\r\nHost: localhost"
            head += f"\r\nContent-Length: {len(body)}"
            sending.sendall(f"{head}\r\nExpect: 100-continue\r\n\r\n".encode())
            assert b"100 Continue" in sending.recv(1000)  # so the request is in progress
            os.kill(at.pid, signal.SIGTERM)
            sending.sendall(body)
            response = http.client.HTTPResponse(sending)
            response.begin()
            counts.append(len(json.loads(response.read())["outputs"]["label"]))
        end = os.waitid(os.P_PID, at.pid, os.WEXITED | os.WNOWAIT)
    assert counts == [len(images) * 200]
    assert end is not None
    assert (end.si_code, end.si_status) == (os.CLD_EXITED, 0)


FAILED_STARTS = [
    (["--model_base_path=/nowhere"], "expected a folder of versions"),
    ([], "expected --model_base_path or --model_config_file"),
    (["--model_base_path={base}", "--port=http"], "expected a port"),
    (["--model_base_path={base}", "--unknown"], "unrecognized arguments: --unknown"),
    (["--model_config_file={bad}"], "is not a text proto of ModelServerConfig"),
    (["--model_base_path={base}", "--ssl_config_file={pem}"], "expected server_key as PEM text"),
    (
        ["--model_base_path={base}", "--enable_batching", "--batching_parameters_file={bad}"],
        "is not a text proto of BatchingParameters",
    ),
    (["--model_base_path={base}", "--port={taken}"], "cannot listen on 127.0.0.1:{taken}"),
]


@pytest.mark.parametrize(("flags", "part"), FAILED_STARTS)
def test_a_start_that_fails_prints_one_line(
    server: Addresses, model_base: Path, tmp_path: Path, flags: list[str], part: str
) -> None:
    import sys

    (tmp_path / "bad").write_text("nonsense {")
    (tmp_path / "pem").write_text('server_key: "x" server_cert: "y"')
    values = {
        "base": model_base,
        "bad": tmp_path / "bad",
        "pem": tmp_path / "pem",
        "taken": server.grpc.rsplit(":", 1)[1],
    }
    command = [sys.executable, "-P", "-m", "serving.server", *(f.format(**values) for f in flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("serving: ")]
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert len(lines) == 1
    assert part.format(**values) in lines[0]


def test_a_first_version_that_fails_to_load_ends_the_server(model_base: Path) -> None:
    shutil.rmtree(model_base / "1" / "variables")
    from regraft_core.runtime.errors import RegraftError

    server = started_server([f"--model_base_path={model_base}"])
    with pytest.raises(RegraftError, match="did not become available"), server:
        pytest.fail("it must not start")
