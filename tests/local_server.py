"""A local HTTP server for tests: a free port, a thread, and one method that responds."""

from __future__ import annotations

import http.server
import ssl
import threading
from abc import ABC, abstractmethod
from typing import Self


class LocalServer(ABC):
    """A server that runs inside a `with` statement, with a thread for each request."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.respond(self)

            def do_POST(self) -> None:
                server.respond(self)

            def do_DELETE(self) -> None:
                server.respond(self)

            def log_message(self, format: str, *values: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "https" if context else "http"
        self.address = f"{scheme}://localhost:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @abstractmethod
    def respond(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Read a request from the handler and write the response to it."""


def read_body(handler: http.server.BaseHTTPRequestHandler) -> bytes:
    """Return the body of a request; it may be empty."""
    return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))


def write_response(
    handler: http.server.BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes
) -> None:
    """Write a complete response."""
    handler.send_response(status)
    for name, value in (headers | {"Content-Length": str(len(body))}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
