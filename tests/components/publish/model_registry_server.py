"""A local server with the used part of the REST API of the Kubeflow Model Registry.

Requests and responses are validated by the models of the registry's own client.
"""

from __future__ import annotations

import http.server
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import mr_openapi as api

from tests.local_server import LocalServer, read_body, write_response

PREFIX = "/api/model_registry/v1"


class RegistryServer(LocalServer):
    """`fault` is a path prefix and the status of its responses."""

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, Any] = {}
        self.versions: dict[str, Any] = {}
        self.artifacts: dict[str, Any] = {}
        self.fault: tuple[str, int] = ("", 0)

    def respond(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = read_body(handler)
        parts = urlsplit(handler.path)
        path = f"{handler.command} {parts.path.removeprefix(PREFIX)}"
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if self.fault[0] and path.startswith(self.fault[0]):
            status, value = self.fault[1], {"code": "", "message": "failed on purpose"}
        else:
            status, value = self._handle(path, query, body)
        headers = {"Content-Type": "application/json"}
        write_response(handler, status, headers, json.dumps(value).encode())

    def _handle(self, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        given = json.loads(body) if body else {}
        match path:
            case "GET /registered_models":
                return 200, {"items": list(self.models.values()), "pageSize": 1, "size": 0,
                             "nextPageToken": ""}  # fmt: skip
            case "GET /registered_model":
                return self._found(self.models, query["name"])
            case "POST /registered_models":
                api.RegisteredModelCreate.model_validate(given)
                return self._added(self.models, given["name"], given)
            case "GET /model_version":
                key = f"{query['parentResourceId']}/{query['name']}"
                return self._found(self.versions, key)
            case "POST /model_versions":
                api.ModelVersionCreate.model_validate(given)
                key = f"{given['registeredModelId']}/{given['name']}"
                return self._added(self.versions, key, given)
        if path.startswith("POST /model_versions/") and path.endswith("/artifacts"):
            api.Artifact.from_dict(given)
            return self._added(self.artifacts, path.split("/")[2], given)
        return 404, {"code": "404", "message": f"{path} not found"}

    def _found(self, values: dict[str, Any], key: str) -> tuple[int, Any]:
        found = values.get(key)
        return (200, found) if found else (404, {"code": "404", "message": "not found"})

    def _added(self, values: dict[str, Any], key: str, given: Any) -> tuple[int, Any]:
        values[key] = {**given, "id": str(len(values) + 1)}
        return 201, values[key]
