"""A local HTTP server for tests: a free port, a thread, and one method that answers."""

from __future__ import annotations

import http.server
import ssl
import threading
from abc import ABC, abstractmethod
from typing import Self


class LocalServer(ABC):
    """Serves while it is a context, each request in a thread of its own."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def do_POST(self) -> None:
                server.answer(self)

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
    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Read the request from the handler and write the answer to it."""


def read_body(handler: http.server.BaseHTTPRequestHandler) -> bytes:
    """Return the body of a request; it may be empty."""
    return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))


def write_answer(
    handler: http.server.BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes
) -> None:
    """Write a whole answer."""
    handler.send_response(status)
    for key, text in (headers | {"Content-Length": str(len(body))}).items():
        handler.send_header(key, text)
    handler.end_headers()
    handler.wfile.write(body)
