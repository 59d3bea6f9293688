"""Behavior of the clients in addition to their results: errors, retries, folders of images."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.server
import json
import re
from pathlib import Path

import pytest

from regraft_client import (
    NO_RETRIES,
    AsyncGrpcClient,
    AsyncRestClient,
    GrpcClient,
    Prediction,
    RestClient,
    Retries,
    errors,
)
from regraft_client.predict_files import (
    PredictOptions,
    as_csv,
    as_json,
    find_images,
    predict_files,
)
from regraft_client.rest_wire import RestRequests, model_path, parse_address
from regraft_client.retries import ReadinessDeadline
from serving.running.runner import Addresses, free_port
from tests.local_server import LocalServer, write_response
from tests.serving.tiny_model import IN_SET

FAMILIAR = [True, True, False, False]  # of the test images, by their brightness
CLIENTS = [RestClient, GrpcClient]


def address_of(kind: type, server: Addresses) -> str:
    return server.rest if kind in (RestClient, AsyncRestClient) else server.grpc


@pytest.mark.parametrize("kind", CLIENTS)
def test_both_protocols_raise_the_same_errors(
    server: Addresses, kind: type, images: list[bytes]
) -> None:
    address = address_of(kind, server)
    with kind(address, "none") as client, pytest.raises(errors.NotFoundError):
        client.predict(images)
    with kind(address, "tiny") as client, pytest.raises(errors.BadRequestError):
        client.predict([b"no image"])
    with kind(address, "tiny", label="none") as client, pytest.raises(errors.BadRequestError):
        client.predict(images)
    with (
        pytest.raises(errors.InvalidInputError, match="a version or a label, got both"),
        kind(address, "tiny", label="stable", version=1) as client,
    ):
        client.predict(images)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_server_that_is_not_running(kind: type, images: list[bytes]) -> None:
    address = f"127.0.0.1:{free_port()}"
    refused = rf"cannot reach .*{address}: .*Connection refused"
    with kind(address, "tiny", retries=NO_RETRIES) as client:
        with pytest.raises(errors.ConnectionFailedError, match=refused):
            client.predict(images)
        with pytest.raises(errors.DeadlineError, match=r"not ready within 0\.3 s"):
            client.wait_ready(0.3)


@pytest.mark.parametrize("kind", [AsyncRestClient, AsyncGrpcClient])
def test_a_server_that_is_not_running_by_asyncio(kind: type) -> None:
    async def run() -> None:
        async with kind(f"127.0.0.1:{free_port()}", "tiny", retries=NO_RETRIES) as client:
            with pytest.raises(errors.ConnectionFailedError):
                await client.status()
            with pytest.raises(errors.DeadlineError, match=r"not ready within 0\.3 s"):
                await client.wait_ready(0.3)

    asyncio.run(run())


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_response_that_takes_too_long(server: Addresses, kind: type, images: list[bytes]) -> None:
    with (
        kind(address_of(kind, server), "tiny", timeout_s=0.01) as client,
        pytest.raises(errors.DeadlineError),
    ):
        client.predict(images * 500)


def test_a_model_without_an_available_version_is_waited_for(server: Addresses) -> None:
    class Ended(RestClient):
        attempts = 0

        def _exchange(self, call: object) -> object:
            self.attempts += 1
            state = "AVAILABLE" if self.attempts == 3 else "LOADING"
            status = {"error_code": "OK", "error_message": ""}
            versions = [{"version": "1", "state": state, "status": status}]
            return {"model_version_status": versions}

    with Ended(server.rest, "tiny") as client:
        client.wait_ready(30)
        assert client.attempts == 3
        with pytest.raises(errors.DeadlineError, match="version 1 is LOADING"):
            client.wait_ready(0)


def test_pauses_between_attempts_grow_to_a_limit() -> None:
    first, second = Retries(attempts=3, first_s=0.1, longest_s=0.15).pauses()
    assert 0.05 <= first <= 0.1
    assert 0.075 <= second <= 0.15
    assert list(NO_RETRIES.pauses()) == []


class Failing(RestClient):
    """Fails with the given errors, then responds."""

    def __init__(self, *failures: errors.RegraftClientError) -> None:
        super().__init__("127.0.0.1:1", "m", retries=Retries(3, first_s=0, longest_s=0))
        self.failures = list(failures)

    def _exchange(self, call: object) -> object:
        if self.failures:
            raise self.failures.pop(0)
        return {"model_version_status": []}


UNAVAILABLE = errors.UnavailableError("UNAVAILABLE", "full")
LOST = errors.ConnectionFailedError("lost")


def test_only_unavailable_servers_are_retried_and_not_for_ever() -> None:
    assert Failing(UNAVAILABLE, LOST).status() == []
    with pytest.raises(errors.UnavailableError):
        Failing(LOST, LOST, UNAVAILABLE).status()
    client = Failing(errors.NotFoundError("NOT_FOUND", "no"), UNAVAILABLE)
    with pytest.raises(errors.NotFoundError):
        client.status()
    assert len(client.failures) == 1


def test_waiting_for_a_model_outlasts_any_error_and_ends() -> None:
    unknown = errors.NotFoundError("NOT_FOUND", "no")
    assert ReadinessDeadline(60).pause_after(unknown) > 0
    with pytest.raises(errors.DeadlineError, match=r"within 0 s: NOT_FOUND: no"):
        ReadinessDeadline(0).pause_after(unknown)


@pytest.mark.parametrize("value", [{}, {"model_version_status": [{"version": "x"}]}, [], 5])
def test_a_response_of_another_shape_is_the_servers_error(value: object) -> None:
    with pytest.raises(errors.ServerFailedError, match="response cannot be read"):
        RestRequests("/v1/models/m").status().read(value)


HTTP_STATUSES = [
    (400, errors.BadRequestError),
    (404, errors.NotFoundError),
    (413, errors.OverloadedError),
    (429, errors.OverloadedError),
    (403, errors.AccessError),
    (501, errors.UnsupportedError),
    (503, errors.UnavailableError),
    (504, errors.DeadlineError),
    (500, errors.ServerFailedError),
]


@pytest.mark.parametrize(("status", "kind"), HTTP_STATUSES)
def test_http_statuses_become_errors(status: int, kind: type) -> None:
    assert type(errors.http_error(status, "x")) is kind


ADDRESSES = [
    ("localhost:8501", ("http://localhost:8501", "")),
    ("http://[::1]:8501/", ("http://[::1]:8501", "")),
    ("https://host/prefix/", ("https://host", "/prefix")),
]


@pytest.mark.parametrize(("address", "expected"), ADDRESSES)
def test_addresses(address: str, expected: tuple[str, str]) -> None:
    assert parse_address(address) == expected


@pytest.mark.parametrize(
    "address", ["ftp://host", "http://", "host:port", "host:99999", "http://["]
)
def test_malformed_addresses_are_invalid_input(address: str) -> None:
    with pytest.raises(errors.InvalidInputError, match=re.escape(f"got {address!r}")):
        RestClient(address, "m")


def test_names_are_quoted_in_paths(server: Addresses) -> None:
    assert model_path("a/b c", None, "ü") == "/v1/models/a%2Fb%20c/labels/%C3%BC"
    with RestClient(server.rest, "a/b c?") as client, pytest.raises(errors.NotFoundError) as caught:
        client.status()
    assert caught.value.message == "Could not find any versions of model a/b c?"


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_folder_is_predicted(
    server: Addresses, images: list[bytes], tmp_path: Path, scheme: str
) -> None:
    for number in range(9):
        (tmp_path / f"{number}.png").write_bytes(images[number % 4])
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("ignored")
    address = f"{scheme}://{server.grpc if scheme == 'grpc' else server.rest}"
    done: list[tuple[int, int]] = []
    results = predict_files(
        [tmp_path], address, "tiny", PredictOptions(batch_size=4, concurrency=3),
        lambda count, of: done.append((count, of)),
    )  # fmt: skip
    assert [Path(r.path).name for r in results] == [*(f"{n}.png" for n in range(9)), "bad.png"]
    predictions = [r.prediction for r in results[:9] if r.prediction]
    assert len(predictions) == 9
    assert results[9].prediction is None
    assert results[9].error
    assert done[-1] == (10, 10)
    rows = json.loads(as_json(results))
    assert rows[0]["label"] == predictions[0].label
    assert "error" in rows[9]
    assert [row.get("familiar") for row in rows[:4]] == FAMILIAR
    header, *lines = as_csv(results).splitlines()
    assert header == "path,label,confidence,familiar,label_set,abstain,error"
    assert [row.get("abstain") for row in rows[:4]] == FAMILIAR
    for row in rows[:9]:
        inside = [k for k, p in enumerate(row["probabilities"]) if p >= IN_SET]
        assert row["label_set"] == [f"class {k}" for k in inside]
    assert [line.split(",")[3] for line in lines[:4]] == ["true", "true", "false", "false"]
    assert lines[9].split(",")[1:4] == ["", "", ""]


@pytest.mark.parametrize("kind", CLIENTS)
def test_familiar_is_reported_if_the_model_has_a_threshold(
    server: Addresses, kind: type, images: list[bytes]
) -> None:
    def flags(predictions: list[Prediction]) -> list[bool | None]:
        return [prediction.familiar for prediction in predictions]

    address = address_of(kind, server)
    with kind(address, "tiny", version=2) as client:
        assert flags(client.predict(images)) == FAMILIAR
    with kind(address, "tiny", version=1) as client:
        assert flags(client.predict(images)) == [None] * 4


def test_paths_and_urls_that_cannot_be_used_are_invalid_input(
    tmp_path: Path, server: Addresses
) -> None:
    with pytest.raises(errors.InvalidInputError, match="found no image"):
        find_images([tmp_path])
    with pytest.raises(errors.InvalidInputError, match="expected an image or a folder"):
        find_images([tmp_path / "none"])
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(errors.InvalidInputError, match="server: expected grpc://"):
        predict_files([tmp_path], "ftp://x", "tiny")
    with pytest.raises(errors.NotFoundError):
        predict_files([tmp_path], f"grpc://{server.grpc}", "none")


class AnyServer(LocalServer):
    """Responds to each request with the same bytes."""

    status, headers, body = 200, dict[str, str](), b"{}"

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []

    def respond(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.requests.append(handler.path)
        with contextlib.suppress(ConnectionError):
            write_response(handler, self.status, self.headers, self.body)


def test_a_redirect_is_not_followed(images: list[bytes]) -> None:
    with AnyServer() as other, AnyServer() as server:
        server.status, server.headers = 307, {"Location": f"{other.address}/elsewhere"}
        with (
            RestClient(server.address, "tiny") as client,
            pytest.raises(errors.ServerFailedError, match="redirect"),
        ):
            client.predict(images)
        assert other.requests == []


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_large_response_is_not_read(
    images: list[bytes], monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr("regraft_client.rest.MAX_RESPONSE_BYTES", 1 << 20)
    with AnyServer() as server, RestClient(server.address, "tiny") as client:
        body = b'{"outputs": "' + b"x" * (1 << 22) + b'"}'
        server.body = gzip.compress(body) if encoding else body
        server.headers = {"Content-Encoding": encoding} if encoding else {}
        with pytest.raises(errors.ServerFailedError, match="larger than 1048576 bytes"):
            client.predict(images)


def test_a_deep_response_cannot_be_read(images: list[bytes]) -> None:
    with AnyServer() as server, RestClient(server.address, "tiny") as client:
        server.body = b"[" * 100_000
        with pytest.raises(errors.ServerFailedError, match="cannot be read"):
            client.predict(images)


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_unknown_label_is_never_ready(server: Addresses, kind: type) -> None:
    address = address_of(kind, server)
    with kind(address, "tiny", label="stable") as client:
        client.wait_ready(30)
    with (
        kind(address, "tiny", label="none") as client,
        pytest.raises(errors.DeadlineError, match="Unrecognized servable version label: none"),
    ):
        client.wait_ready(0.3)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/"])
def test_the_address_that_serve_prints_is_accepted(
    server: Addresses, images: list[bytes], path: str
) -> None:
    with RestClient(f"http://{server.rest}{path}", "tiny") as client:
        assert len(client.predict(images)) == len(images)
    assert parse_address("http://host/prefix/v1/models/") == ("http://host", "/prefix")
