"""The paths of the Open Inference Protocol on the REST port."""

from __future__ import annotations

import re
import urllib.parse
from typing import Any

from aiohttp import web

from serving.server.models.catalog import ModelSpec
from serving.server.ports.request_body import RequestBody, RestLimits, run_with_body
from serving.server.protocol import json_values, open_inference_json
from serving.server.protocol.status import Code, http_status, invalid
from serving.server.requests import open_inference
from serving.server.server_state import RequestLabels, ServerState

_PATH = re.compile(r"/v2(?:/.*)?", re.DOTALL)
_SERVER = re.compile(r"/v2/?|/v2/health/(?P<health>live|ready)")
_MODEL = re.compile(
    r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<method>infer|ready))?"
)
_JSON_BYTES = "Inference-Header-Content-Length"


def has_path(path: str) -> bool:
    """Return whether a path belongs to this protocol."""
    return _PATH.fullmatch(path) is not None


async def respond(
    state: ServerState, limits: RestLimits, path: str, request: web.Request
) -> web.Response:
    """Return the response to a request.

    Raises:
        ServingError: the request fails; `Malformed request: VERB path` for other paths and verbs.
    """
    verb = request.method
    server, model = _SERVER.fullmatch(path), _MODEL.fullmatch(path)
    if verb == "GET" and server:
        return _server_response(state, server["health"])
    if model is None or verb != ("POST" if model["method"] == "infer" else "GET"):
        raise invalid(f"Malformed request: {verb} {path}")
    name, version = (
        urllib.parse.unquote(model[part] or "", errors="surrogateescape")
        for part in ("name", "version")
    )
    method = model["method"] or "metadata"

    async def call() -> web.Response:
        spec = open_inference.model_spec(name, version)
        if method == "infer":
            json_bytes = _json_bytes(request)
            return await run_with_body(
                state, limits, request, lambda body: _infer(state, spec, body, json_bytes)
            )
        work = _ready if method == "ready" else _metadata
        return await state.workers.run(lambda: work(state, spec), limits.timeout_s)

    return await state.measured(RequestLabels(method, "REST", name), call)


def _server_response(state: ServerState, health: str | None) -> web.Response:
    if health is None:
        return _json(open_inference.server_metadata())
    if health == "live":
        return _json({"live": True})
    return _readiness({}, open_inference.server_ready(state.catalog))


def _ready(state: ServerState, spec: ModelSpec) -> web.Response:
    return _readiness({"name": spec.name}, open_inference.model_ready(state.catalog, spec))


def _metadata(state: ServerState, spec: ModelSpec) -> web.Response:
    return _json(open_inference.model_metadata(state.catalog, spec))


def _infer(
    state: ServerState, spec: ModelSpec, body: RequestBody, json_bytes: int | None
) -> web.Response:
    with body.document_and_data(json_bytes) as (document, data):
        request = open_inference_json.read_request(document, data)
        del document, data  # only its tensors are needed
    response = open_inference.infer(state.catalog, spec, request)
    head, binary = open_inference_json.write_response(response, request)
    if binary is None:
        return web.Response(body=head, content_type="application/json")
    return web.Response(
        body=head + binary,
        content_type="application/octet-stream",
        headers={_JSON_BYTES: str(len(head))},
    )


def _json_bytes(request: web.Request) -> int | None:
    """Return the size of the JSON at the beginning of the body; None is all of it."""
    values = request.headers.getall(_JSON_BYTES, [])
    if not values:
        return None
    (text, *others) = values
    if others or not (text.isascii() and text.isdecimal()) or len(text) > 18:
        raise invalid(f"{_JSON_BYTES}: expected a number of bytes, got {', '.join(values)[:100]!a}")
    return int(text)


def _readiness(value: dict[str, Any], ready: bool) -> web.Response:
    status = 200 if ready else http_status(Code.UNAVAILABLE)
    return _json({**value, "ready": ready}, status)


def _json(value: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(
        body=json_values.dump(value), status=status, content_type="application/json"
    )
