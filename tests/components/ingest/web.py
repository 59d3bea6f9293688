"""A local web server with planned responses and faults, also as Google Drive behind TLS."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Reply:
    """One response: `send` bytes of the body, then `after`: close, stall or (instead) drip."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    send: int | None = None
    after: str = "close"
    ranges: bool = True


class Web:
    """A server on a free local port; responses are planned by path, and the last one repeats."""

    def __init__(self) -> None:
        self.plans: dict[str, list[Reply]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.stop = threading.Event()
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web.respond(self)

            def do_CONNECT(self) -> None:
                web.tunnel(self)

            def log_message(self, format: str, *values: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self.tls: ssl.SSLContext | None = None
        self._handler = Handler
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self.stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def plan(self, path: str, *replies: Reply) -> str:
        self.plans[path] = list(replies)
        return self.address + path

    def respond(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.requests.append((handler.path, dict(handler.headers)))
        plan = self.plans.get(handler.path) or [Reply(b"not found", 404)]
        reply = plan.pop(0) if len(plan) > 1 else plan[0]
        status, body, headers = reply.status, reply.body, dict(reply.headers)
        requested = handler.headers.get("Range", "")
        etag = headers.get("ETag", "")
        if status == 200 and etag and handler.headers.get("If-None-Match") == etag:
            status, body = 304, b""
        same = handler.headers.get("If-Range") in (None, etag)
        if status == 200 and requested and reply.ranges and same:
            start = int(requested.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            status, body = 206, body[start:]
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        with contextlib.suppress(OSError):
            self._send(handler, reply, body)
        if reply.send is not None:
            handler.close_connection = True

    def _send(self, handler: http.server.BaseHTTPRequestHandler, reply: Reply, body: bytes) -> None:
        if reply.after == "drip":
            for byte in body:
                handler.wfile.write(bytes([byte]))
                if self.stop.wait(0.02):
                    return
        handler.wfile.write(body if reply.send is None else body[: reply.send])
        handler.wfile.flush()
        if reply.after == "stall":
            self.stop.wait(20)

    def tunnel(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Respond to a CONNECT of any host as that host, with a certificate for it."""
        assert self.tls is not None
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        with contextlib.suppress(OSError):
            secured = self.tls.wrap_socket(handler.connection, server_side=True)
            self._handler(secured, handler.client_address, self._server)
            with contextlib.suppress(OSError):
                secured.shutdown(socket.SHUT_RDWR)
            secured.close()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificates(folder: Path, hosts: list[str]) -> tuple[Path, Path]:
    """Write the certificate of a test authority, and a key with its certificate for `hosts`."""
    now = datetime.datetime.now(datetime.UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())

    def certificate(subject: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name("test authority"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    authority = (
        certificate("test authority", authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
    own = (
        certificate(hosts[0], key.public_key())
        .add_extension(names, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    authority_file, own_file = folder / "authority.pem", folder / "own.pem"
    authority_file.write_bytes(authority.public_bytes(pem))
    own_file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + own.public_bytes(pem)
    )
    return authority_file, own_file


@contextlib.contextmanager
def serving() -> Iterator[Web]:
    """Yield a running server and stop it."""
    web = Web()
    try:
        yield web
    finally:
        web.close()
