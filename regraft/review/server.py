"""Serves the page of a review on this machine, to whoever has the token, and saves decisions."""

from __future__ import annotations

import hmac
import json
import secrets
import urllib.parse
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from regraft.review.decisions import Decisions
from regraft_core.runtime.errors import InputError
from serving.server.ports.allowed_hosts import AllowedHosts

HOST, TOKEN_HEADER = "127.0.0.1", "X-Regraft-Token"
MAX_BODY_BYTES = 1 << 16
TIMEOUT_S = 30.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class ReviewServer(ThreadingHTTPServer):
    """Sends the page for GET /, and saves a decision for POST /decisions.

    Both need the token; `url` is the address with it.
    """

    daemon_threads = True

    def __init__(self, port: int, page: Callable[[], str], decisions: Decisions) -> None:
        """Listen on a port of the loopback address; 0 is a free one.

        Raises:
            InputError: the port is taken.
        """
        self.page, self.decisions, self.token = page, decisions, secrets.token_urlsafe(24)
        self.allowed = AllowedHosts(HOST)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise InputError(f"--port {port}: cannot listen: {error.strerror}") from error

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print no traceback: a browser that leaves, or an invalid request, ends its connection."""

    @property
    def url(self) -> str:
        """Address of the page, with the token."""
        return f"http://{HOST}:{self.server_port}/?token={self.token}"


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    timeout = TIMEOUT_S
    server_version, sys_version = "Regraft", ""

    def do_GET(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        token = urllib.parse.parse_qs(parts.query).get("token", [""])[0]
        if self._is_refused(token):
            return
        if parts.path == "/":
            self._send(HTTPStatus.OK, self.server.page(), "text/html; charset=utf-8")
        else:
            self._send(HTTPStatus.NOT_FOUND, "not found\n")

    def do_POST(self) -> None:
        if self._is_refused(self.headers.get(TOKEN_HEADER, "")):
            return
        try:
            if self.path != "/decisions":
                raise InputError("expected a request to /decisions")
            values = self._read_json()
            texts = [values.get(name, "") for name in ("sha256", "action", "new_label")]
            if not all(isinstance(text, str) for text in texts):
                raise InputError("expected texts")
            saved = self.server.decisions.decide(*texts)
        except InputError as error:
            self._send_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except OSError as error:
            message = f"cannot write {self.server.decisions.path}: {error.strerror}"
            self._send_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": message})
        else:
            path = str(self.server.decisions.path)
            self._send_json(HTTPStatus.OK, {"saved": saved, "file": path})

    def _is_refused(self, token: str) -> bool:
        """Refuse a request of another page, or without the token; return whether it was one."""
        headers = self.headers
        reason = self.server.allowed.refusal(
            headers.get_all("Host", []), headers.get_all("Origin", [])
        )
        if not reason and not hmac.compare_digest(token.encode(), self.server.token.encode()):
            reason = "expected the address that `regraft review` has printed, with its token"
        if reason:
            self._send(HTTPStatus.FORBIDDEN, f"{reason}\n")
        return bool(reason)

    def _read_json(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            raise InputError(f"expected a body of at most {MAX_BODY_BYTES} bytes")
        try:
            values = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise InputError("expected a JSON object")
        return values

    def _send_json(self, status: HTTPStatus, values: dict[str, Any]) -> None:
        self._send(status, json.dumps(values), "application/json")

    def _send(self, status: HTTPStatus, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: Any) -> None:
        """Log nothing: the address has the token."""
