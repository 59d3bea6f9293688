"""A page of another site cannot use a server on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.running.runner import Addresses, ServeOptions, running_server
from serving.server.ports.allowed_hosts import AllowedHosts
from tests.serving.raw import http_request

M = "/v1/models/tiny"
LOOPBACK = [
    "127.0.0.1:8501",
    "127.0.0.9",
    "localhost",
    "LOCALHOST:1",
    "a.localhost:3",
    "[::1]:8501",
]
FOREIGN = ["example.org", "example.org:8501", "127.0.0.1.example.org", "localhost.example.org",
           "10.0.0.1", "", "[", "[::2]", "127.0.0.1@example.org", "0.0.0.0"]  # fmt: skip
CHECKED = AllowedHosts("127.0.0.1", ["proxy.example.org", ""])


@pytest.mark.parametrize("host", [*LOOPBACK, "proxy.example.org", "Proxy.Example.org:443"])
def test_accepted_hosts(host: str) -> None:
    assert CHECKED.refusal([host], [f"http://{host}"]) == ""


@pytest.mark.parametrize("host", FOREIGN)
def test_refused_hosts(host: str) -> None:
    assert CHECKED.refusal([host], []).startswith("Host: expected a loopback address, got ")
    assert CHECKED.refusal([], [f"https://{host}"]).startswith("Origin: expected a page of this")
    assert CHECKED.refusal(["localhost", host], []) != ""


def test_other_origins() -> None:
    assert CHECKED.refusal(["localhost"], ["null"]) != ""
    assert CHECKED.refusal([], []) == ""


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "10.1.2.3", "server.example.org"])
def test_a_server_of_other_machines_accepts_all(bound: str) -> None:
    assert AllowedHosts(bound).refusal(["example.org"], ["http://example.org"]) == ""
    for own in ("::1", "localhost", "127.0.0.1"):
        assert AllowedHosts(own).refusal(["example.org"], []) != ""


@pytest.fixture(scope="module")
def open_server(
    conformance_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Addresses]:
    """A server with a page and metrics, CORS, and an allowed host."""
    config = tmp_path_factory.mktemp("config") / "monitoring.config"
    config.write_text('prometheus_config { enable: true path: "/metrics" }')
    flags = ("--page", "--allowed_host=proxy.example.org", "--rest_api_enable_cors_support",
             f"--monitoring_config_file={config}")  # fmt: skip
    options = ServeOptions(flags=flags)
    with running_server(conformance_base / "tiny", "tiny", "embedded", options) as addresses:
        yield addresses


def test_the_port_refuses_foreign_hosts_and_origins(server: Addresses) -> None:
    body = json.dumps({"signature_name": "large", "inputs": [1]})
    for headers, status in (
        ({"Host": "example.org"}, 403),
        ({"Origin": "http://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": f"http://{server.rest}"}, 200),
        ({"Host": "localhost:1"}, 200),
    ):
        found, _, content = http_request(server.rest, "POST", f"{M}:predict", body, headers)
        assert found == status
        assert found == 200 or "expected" in json.loads(content)["error"]
    assert http_request(server.rest, "GET", M, headers={"Host": "example.org"})[0] == 403


def test_cors_and_an_allowed_host(open_server: Addresses) -> None:
    for host, status in (("example.org", 403), ("proxy.example.org", 200)):
        for path in ("/", "/metrics", M):
            found, headers, _ = http_request(open_server.rest, "GET", path, headers={"Host": host})
            assert found == status
            assert headers["access-control-allow-origin"] == "*"
    headers = {"Origin": "http://example.org"}
    assert http_request(open_server.rest, "GET", M, headers=headers)[0] == 200
    assert http_request(open_server.rest, "OPTIONS", M, headers=headers)[0] == 200


def test_the_path_of_metrics_has_no_query(open_server: Addresses) -> None:
    assert http_request(open_server.rest, "GET", "/metrics?x=1")[0] == 400
    assert b"request_count" in http_request(open_server.rest, "GET", "/metrics")[2]
