"""The REST port: TF Serving's HTTP/JSON API on aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from serving.server.memory import HeldBody
from serving.server.models.catalog import ModelSpec
from serving.server.ports.allowed_hosts import AllowedHosts
from serving.server.ports.request_body import RequestBody, TooLargeError, read_body
from serving.server.protocol import json_examples, json_tensor, json_values
from serving.server.protocol.signature import DEFAULT_SIGNATURE
from serving.server.protocol.status import Code, ServingError, http_status, invalid, not_found
from serving.server.requests import api_methods, inference
from serving.server.server_state import RequestLabels, ServerState

_SPEC = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
# Paths are case-insensitive, the name of the method is not: `:PREDICT` is malformed, and
# `/METADATA` is the status.
_ACTION = re.compile(
    rf"(?i:/v1/models/(?P<name>[^/:]+){_SPEC}):(?P<method>classify|regress|predict)"
)
_STATUS = re.compile(rf"(?i:/v1/models(?:/(?P<name>[^/:]+))?{_SPEC})(?P<metadata>(?i:/metadata))?")
_API = re.compile(r"(?i)/v1/.*", re.DOTALL)
_AUTHORITY = re.compile(r"(?i)https?://[^/?#]*")
_VERBS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
_MAX_VERSION = (1 << 63) - 1


@dataclass(frozen=True)
class Target:
    """The target of a request line; `method` is predict, classify, regress, status or metadata."""

    spec: ModelSpec
    method: str


@dataclass(frozen=True)
class RestLimits:
    """Limits of a request: bytes of its body, sent and inflated, and seconds in total."""

    max_bytes: int
    timeout_s: float


def parse_target(verb: str, path: str) -> Target:
    """Parse a request line.

    Raises:
        ServingError: INVALID_ARGUMENT `Malformed request: VERB path`, or no model name.
    """
    pattern = {"POST": _ACTION, "GET": _STATUS}.get(verb)
    match = pattern.fullmatch(path) if pattern is not None else None
    if match is None:
        raise invalid(f"Malformed request: {verb} {path}")
    groups = match.groupdict()
    name = urllib.parse.unquote(groups["name"] or "", errors="surrogateescape")
    version = _version(groups["version"]) if groups["version"] else None
    label = urllib.parse.unquote(groups["label"]) if groups["label"] else None
    if not name:
        raise invalid("Missing model name in request.")
    of_metadata = groups.get("metadata") == "/metadata"
    method = groups.get("method") or ("metadata" if of_metadata else "status")
    return Target(ModelSpec(name, version, label), method)


def _version(digits: str) -> int:
    significant = digits.lstrip("0")
    if len(significant) > 19 or int(significant or "0") > _MAX_VERSION:
        raise invalid(f"Failed to convert version: {digits[:100]} to numeric.")
    return int(significant or "0")


class ConnectionReaper:
    """Closes connections on which no request with complete headers arrives.

    aiohttp closes a connection that idles after a request, but waits for the first without limit.
    """

    def __init__(self) -> None:
        self._active: set[object] = set()

    def keep(self, request: web.Request) -> None:
        """Record that a request has arrived on its connection."""
        self._active.add(request.protocol)

    async def close_silent(self, server: web.Server, timeout_s: float) -> None:
        """Close connections without a request for `timeout_s`, until this is cancelled."""
        since: dict[object, float] = {}
        while True:
            now = time.monotonic()
            connections = list(server.connections)
            self._active.intersection_update(connections)
            silent = [one for one in connections if one not in self._active]
            since = {one: since.get(one, now) for one in silent}
            for connection in silent:
                if now - since[connection] > timeout_s:
                    connection.force_close()
            await asyncio.sleep(min(timeout_s / 4, 5.0))


@dataclass(frozen=True)
class RestOptions:
    """What the port offers; empty `metrics_path` and `page` (HTML) disable these."""

    limits: RestLimits
    hosts: AllowedHosts
    metrics_path: str = ""
    page: str = ""
    cors: bool = False


def make_app(state: ServerState, options: RestOptions, reaper: ConnectionReaper) -> web.Application:
    """Return the application."""
    app = web.Application()

    async def respond(request: web.Request) -> web.Response:
        reaper.keep(request)
        try:
            response = await _respond(state, options, request)
        except ServingError as error:
            response = _error_response(error)
        if options.cors:
            response.headers.update(_CORS_HEADERS)
        return response

    app.router.add_route("*", "/{tail:.*}", respond)
    return app


async def _respond(state: ServerState, options: RestOptions, request: web.Request) -> web.Response:
    path = _AUTHORITY.sub("", request.raw_path, count=1)
    verb = request.method
    if verb not in _VERBS:
        raise ServingError(Code.UNIMPLEMENTED, f"no such method: {verb}")
    origins = request.headers.getall("Origin", [])
    foreign = [] if options.cors or verb == "OPTIONS" else origins
    if refusal := options.hosts.refusal(request.headers.getall("Host", []), foreign):
        raise ServingError(Code.PERMISSION_DENIED, refusal)
    if verb == "OPTIONS":
        if not origins:
            raise invalid("Origin header is missing in CORS preflight")
        return web.Response()
    if options.metrics_path and path.partition("?")[0] == options.metrics_path:
        if path != options.metrics_path:
            raise invalid(f"Malformed request: {verb} {path}")
        return web.Response(text=state.metrics.page(), content_type="text/plain")
    if options.page and path in ("/", "/index.html") and verb in ("GET", "HEAD"):
        return web.Response(text=options.page, content_type="text/html", headers=_PAGE_HEADERS)
    if not _API.fullmatch(path):
        raise not_found(f"no such path: {path}")
    target = parse_target(verb, path)
    labels = RequestLabels(target.method, "REST", target.spec.name)
    body = await state.measured(labels, lambda: _call(state, options.limits, target, request))
    return web.Response(body=body, content_type="application/json")


_CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Origin, X-Requested-With, Content-Type, Accept",
}
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def _error_response(error: ServingError) -> web.Response:
    status = 413 if isinstance(error, TooLargeError) else http_status(error.code)
    return web.Response(
        body=json_values.dump({"error": error.message}),
        status=status,
        content_type="application/json",
    )


async def _call(
    state: ServerState, limits: RestLimits, target: Target, request: web.Request
) -> bytes:
    """Read the body and compute the response, both within the time limit."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limits.timeout_s
    spec = target.spec
    if target.method == "status":
        return await state.workers.run(lambda: _status(state, spec), limits.timeout_s)
    if target.method == "metadata":
        return await state.workers.run(lambda: _metadata(state, spec), limits.timeout_s)
    encoding = ", ".join(request.headers.getall("Content-Encoding", []))
    held = HeldBody(state.bodies)
    try:
        async with asyncio.timeout_at(end):
            received = await read_body(request, held, limits.max_bytes)
    except TimeoutError:
        held.release()
        raise ServingError(Code.DEADLINE_EXCEEDED, "the body did not arrive in time") from None
    except BaseException:
        held.release()
        raise
    body = RequestBody(received, encoding, limits.max_bytes, state.memory)
    method = _METHODS[target.method]
    return await state.workers.run(
        lambda: method(state, spec, body), end - loop.time(), held.release
    )


def _predict(state: ServerState, spec: ModelSpec, body: RequestBody) -> bytes:
    with contextlib.ExitStack() as stack:
        with body.document() as document:
            name = json_values.signature_name(document) or DEFAULT_SIGNATURE
            lease = stack.enter_context(state.catalog.lease(spec))
            signature = lease.servable.signatures.get(name)
            if signature is None:
                raise invalid(f'Serving signature name: "{name}" not found in signature def')
            if not signature.inputs:
                raise invalid(f"Failed to get input map for signature: {name}")
            inputs, form = json_tensor.read_inputs(document, signature.inputs)
            del document  # only its tensors are needed
        outputs = inference.predict(lease.servable, signature, inputs)
        return json_tensor.write_outputs(outputs, form)


def _classify(state: ServerState, spec: ModelSpec, body: RequestBody) -> bytes:
    request = classification_pb2.ClassificationRequest()
    _fill_examples(request, spec, body)
    return json_values.dump(
        json_examples.classification_json(api_methods.classify(state.catalog, request).result)
    )


def _regress(state: ServerState, spec: ModelSpec, body: RequestBody) -> bytes:
    request = regression_pb2.RegressionRequest()
    _fill_examples(request, spec, body)
    return json_values.dump(
        json_examples.regression_json(api_methods.regress(state.catalog, request).result)
    )


_METHODS: dict[str, Callable[[ServerState, ModelSpec, RequestBody], bytes]] = {
    "predict": _predict,
    "classify": _classify,
    "regress": _regress,
}


def _fill_examples(request: Any, spec: ModelSpec, body: RequestBody) -> None:
    with body.document() as document:
        _fill_spec(request.model_spec, spec)
        name = json_values.signature_name(document)
        # A message's texts are UTF-8; no signature has a name that is not.
        request.model_spec.signature_name = json_values.text_bytes(name).decode("utf-8", "replace")
        json_examples.read_examples(document, request.input)


def _fill_spec(model_spec: Any, spec: ModelSpec) -> None:
    try:
        model_spec.name = spec.name
    except (UnicodeEncodeError, ValueError):
        raise not_found(f"Servable not found for request: Latest({spec.name!a})") from None
    if spec.version is not None:
        model_spec.version.value = spec.version
    if spec.label is not None:
        model_spec.version_label = spec.label


def _status(state: ServerState, spec: ModelSpec) -> bytes:
    request = get_model_status_pb2.GetModelStatusRequest()
    _fill_spec(request.model_spec, spec)
    return _json(api_methods.model_status(state.catalog, request))


def _metadata(state: ServerState, spec: ModelSpec) -> bytes:
    with state.catalog.lease(spec) as lease:
        model_spec = model_pb2.ModelSpec(name=lease.name)
        model_spec.version.value = lease.version
        signatures: get_model_metadata_pb2.SignatureDefMap = api_methods.signature_map(lease)
    values = {
        "model_spec": _plain(model_spec),
        "metadata": {"signature_def": _plain(signatures)},
    }
    return json_values.dump(values)


def _plain(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _json(message: Any) -> bytes:
    return json_values.dump(_plain(message))
