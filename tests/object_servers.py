"""Local servers of S3 and of Google Cloud Storage."""

from __future__ import annotations

import contextlib
import http
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock


@contextlib.contextmanager
def s3_server(wrap: Callable[[Any], Any] | None = None) -> Iterator[dict[str, str]]:
    """Run moto's server of S3; yield the environment variables that direct s3fs to it.

    `wrap` gets the WSGI application and returns the one to run.
    """
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    if wrap is not None:
        server._server.app = wrap(server._server.app)
    host, port = server.get_host_and_port()
    S3FileSystem.clear_instance_cache()  # those of another server in this process
    try:
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
    finally:
        S3FileSystem.clear_instance_cache()
        server.stop()


@contextlib.contextmanager
def gcs_server() -> Iterator[dict[str, str]]:
    """Run an emulator of Google Cloud Storage; yield the variables that direct gcsfs to it."""
    from gcp_storage_emulator import server as emulator

    with mock.patch.object(emulator, "HANDLERS", _with_preconditions(emulator.HANDLERS)):
        server = emulator.create_server("127.0.0.1", 0, in_memory=True)
        server.start()
        # A reader that closes a stream before its end is not an error to print.
        server._api._httpd.handle_error = lambda *_: None
        port = server._api._httpd.server_address[1]
        try:
            yield {
                "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
                # There are no Google machines and no gRPC interface to connect to.
                "NO_GCE_CHECK": "true", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            }  # fmt: skip
        finally:
            server.stop()


def _with_preconditions(handlers: Any) -> tuple[Any, ...]:
    """Add `ifGenerationMatch=0` (create only) to uploads, as Google Cloud Storage has it."""
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import objects

    def exists(request: Any, storage: Any) -> bool:
        name = (request.query.get("name") or [None])[0] or request.data["meta"]["name"]
        try:
            return bool(storage.get_file_obj(request.params["bucket_name"], name))
        except NotFound:
            return False

    one_at_a_time = threading.Lock()

    def insert(request: Any, response: Any, storage: Any, *rest: Any) -> None:
        with one_at_a_time:
            if request.query.get("ifGenerationMatch") == ["0"] and exists(request, storage):
                response.status = http.HTTPStatus.PRECONDITION_FAILED
                response.json({"error": {"code": 412, "message": "it exists already"}})
            else:
                objects.insert(request, response, storage, *rest)

    return tuple(
        (pattern, {verb: insert if act is objects.insert else act for verb, act in verbs.items()})
        for pattern, verbs in handlers
    )
