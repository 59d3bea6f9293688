"""`regraft serve --request-log`: the log of a running server, also of one that is killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft_client.grpc import GrpcClient
from regraft_client.rest import RestClient
from regraft_core.formats.request_log import LoggedRequest, log_files, read_request_log
from regraft_core.runtime.errors import InputError
from serving.batching_file import BATCHING_FILE
from serving.request_log_options import RequestLogOptions
from serving.running.runner import Addresses, ServeOptions
from serving.running.serve import serving_folder
from tests.command_line import Regraft
from tests.serving.raw import http_request, until
from tests.serving.recorded_model import export_recorded

MONITORING = BATCHING_FILE.with_name("monitoring.config")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model `m` in two versions, `stable` and `canary`."""
    folder = tmp_path_factory.mktemp("models")
    export_recorded(folder / "m" / "1")
    export_recorded(folder / "m" / "2", swapped=True)
    (folder / "m" / "labels.json").write_text(json.dumps({"stable": 1, "canary": 2}))
    return folder


@pytest.fixture(scope="module")
def logged(
    base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Addresses, Path]]:
    log = tmp_path_factory.mktemp("recorded") / "log"
    options = RequestLogOptions(str(log), sample=1.0, log_images=True, shadow_label="canary")
    flags = ServeOptions(flags=[f"--monitoring_config_file={MONITORING}"])
    with serving_folder(base, "embedded", flags, request_log=options) as served:
        yield served.addresses, log


def read(folder: Path, count: int) -> list[LoggedRequest]:
    """Return the log when it has `count` images."""
    until(lambda: bool(log_files(folder)) and len(list(read_request_log(folder))) >= count)
    return list(read_request_log(folder))


def test_both_protocols_are_logged_with_the_shadow(logged: tuple[Addresses, Path]) -> None:
    at, log = logged
    images = [b"1234567", b"123456"]
    with GrpcClient(at.grpc, "m", label="stable") as by_grpc:
        assert [one.label for one in by_grpc.predict(images)] == ["odd", "even"]
        assert by_grpc.features(images[1:]) == [(6.0, 7.0, 8.0, 9.0, 10.0)]
    with RestClient(at.rest, "m", label="stable") as by_rest:
        assert [one.label for one in by_rest.predict(images)] == ["odd", "even"]
        assert by_rest.classify(images[1:])[0][0].label == "even"
    found = read(log, 6)
    assert {one.sha256 for one in found} == {hashlib.sha256(i).hexdigest() for i in images}
    assert {one.image for one in found} == set(images)
    assert {(one.model, one.answer.version) for one in found} == {("m", 1)}
    assert sorted((one.signature, one.answer.predicted) for one in found) == [
        ("classify", "even"),
        ("features", "even"),
        ("serving_default", "even"),
        ("serving_default", "even"),
        ("serving_default", "odd"),
        ("serving_default", "odd"),
    ]
    for one in found:
        assert one.shadow is not None
        differs = one.answer.predicted != one.shadow.predicted
        assert differs == (one.image == images[0])
        assert bool(one.features) == (one.signature != "classify")

    def counted(line: bytes) -> bool:
        return line in http_request(at.rest, "GET", "/monitoring/prometheus/metrics")[2]

    assert counted(b':regraft:serving:shadow_count{outcome="predicted"} 4\n')
    # The writer counts after it has flushed.
    until(lambda: counted(b':regraft:serving:request_log_count{outcome="written"} 4\n'))


def test_a_killed_server_leaves_a_log_that_can_be_read(
    logged: tuple[Addresses, Path], regraft: Regraft
) -> None:
    at, log = logged
    before = len(list(read_request_log(log)))
    with GrpcClient(at.grpc, "m", label="stable") as client:
        for number in range(200):
            client.predict([b"image %d" % number])
        read(log, before + 100)
        os.kill(at.pid, signal.SIGKILL)
    found = list(read_request_log(log))
    assert {one.answer.predicted for one in found[before:]} == {"even", "odd"}
    assert len(found) >= before + 100
    ended = regraft("report", log)
    assert ended.code == 0
    assert ended.out.startswith("m: version 1, shadow version 2\n")


def test_only_the_embedded_server_has_a_log(base: Path, tmp_path: Path, regraft: Regraft) -> None:
    options = RequestLogOptions(str(tmp_path / "log"))
    server = serving_folder(
        base, "tensorflow_model_server", ServeOptions(host="0.0.0.0"), request_log=options
    )
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(InputError, match="--request-log: expected the embedded engine"),
    ):
        binary = tmp_path / "tensorflow_model_server"
        binary.write_text("")
        binary.chmod(0o755)
        patch.setenv("PATH", str(tmp_path))
        with server:
            pass
    assert not (tmp_path / "log").exists()
    ended = regraft("serve", base, "--request-log", binary, "--port", 0, "--rest-api-port", 0)
    assert ended.code == 2
    assert f"--request-log: expected a folder at {binary}" in ended.err
    ended = regraft("serve", base, "--shadow-label", "canary")
    assert (ended.code, "--shadow-label: expected --request-log DIR" in ended.err) == (2, True)
