"""The probe of a Ray node, against a local server."""

from __future__ import annotations

import http.server
import subprocess
import sys

import pytest

from regraft_core.kuberay.health_probe import check_health
from tests.local_server import LocalServer, write_response


class RayNode(LocalServer):
    """A node whose `/healthy` is healthy, and whose `/sick` is not."""

    def respond(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        status, body = {"/healthy": (200, b"success"), "/sick": (200, b"starting")}.get(
            handler.path, (503, b"success")
        )
        write_response(handler, status, {}, body)


def test_all_parts_of_a_node_must_be_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # of other hosts
    with RayNode() as node:
        healthy = f"{node.address}/healthy"
        assert check_health([healthy, healthy]) == ""
        assert "expected success" in check_health([healthy, f"{node.address}/sick"])
        assert "503" in check_health([f"{node.address}/other"])
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "regraft_core.kuberay.health_probe", healthy], check=False
        )
        assert ended.returncode == 0
    assert "refused" in check_health([healthy])
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "regraft_core.kuberay.health_probe", healthy],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
