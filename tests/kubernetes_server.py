"""A local server with the part of the Kubernetes API that a run's Ray cluster uses.

It keeps objects, checks the token and rights, and answers as the API server does: 403, 404, 409.
Tests plan faults, and what KubeRay's operator would do.
"""

from __future__ import annotations

import base64
import copy
import http.server
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from regraft_core.kuberay.kubernetes_api import KubernetesApi
from tests.local_server import LocalServer, read_body, write_response

NAMESPACE, TOKEN = "team", "token-1"
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
OBJECT = re.compile(r"/(?:api|apis/[^/]+)/v1/namespaces/([^/]+)/([a-z]+)(?:/([^/]+))?")
Answer = tuple[int, dict[str, Any]]


class KubernetesServer(LocalServer):
    """`operator` changes a RayCluster each time that it is read, as KubeRay does meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.denied: set[tuple[str, str]] = set()
        self.has_kuberay = True
        self.drops_fields: tuple[str, ...] = ()
        self.faults: list[int] = []
        self.requests: list[str] = []
        self.operator: Callable[[dict[str, Any]], object] = lambda cluster: None

    def api(self, folder: Path, token: str = TOKEN) -> KubernetesApi:
        """Return a client whose token is in a file of the folder."""
        file = folder / "token"
        file.write_text(token)
        return KubernetesApi(self.address, NAMESPACE, file, backoff_s=0)

    def add_pod(self, name: str, **fields: Any) -> None:
        """Add a pod."""
        self.objects["pods", name] = {"metadata": {"name": name}} | fields

    def respond(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = json.loads(read_body(handler) or b"{}")
        self.requests.append(f"{handler.command} {handler.path}")
        if self.faults:
            status, answer = self.faults.pop(0), {"message": "failed on purpose"}
        elif handler.headers["Authorization"] != f"Bearer {TOKEN}":
            status, answer = 401, {"message": "Unauthorized"}
        else:
            status, answer = self._handle(handler.command, handler.path, body)
        content = {"Content-Type": "application/json"}
        write_response(handler, status, content, json.dumps(answer).encode())

    def _handle(self, method: str, target: str, body: dict[str, Any]) -> Answer:
        path = urlsplit(target).path
        if path == "/apis/ray.io/v1":
            return (200, {"groupVersion": "ray.io/v1"}) if self.has_kuberay else (404, {})
        if path == REVIEW:
            wanted = body["spec"]["resourceAttributes"]
            allowed = (wanted["verb"], wanted["resource"]) not in self.denied
            return 201, {"status": {"allowed": allowed and wanted["namespace"] == NAMESPACE}}
        found = OBJECT.fullmatch(path)
        if found is None or found[1] != NAMESPACE:
            return 404, {"message": "not found"}
        kind, name = found[2], found[3]
        verb = {"POST": "create", "DELETE": "delete"}.get(method, "get" if name else "list")
        if (verb, kind) in self.denied:
            return 403, {"message": f"may not {verb} {kind}"}
        if verb == "create":
            return self._create(kind, body)
        if verb == "list":
            return 200, {"items": self._selected(kind, parse_qs(urlsplit(target).query))}
        if (kind, name) not in self.objects:
            return 404, {"message": f"{kind} {name} not found"}
        if verb == "delete":
            return 200, self.objects.pop((kind, name))
        if kind == "rayclusters":
            self.operator(self.objects[kind, name])
        return 200, self.objects[kind, name]

    def _create(self, kind: str, body: dict[str, Any]) -> Answer:
        name = body["metadata"]["name"]
        if (kind, name) in self.objects:
            return 409, {"message": f"{kind} {name} already exists"}
        created = copy.deepcopy(body)
        for field in self.drops_fields:
            created["spec"].pop(field, None)
        self.objects[kind, name] = created
        if kind == "rayclusters":
            token = base64.b64encode(b"secret-of-the-cluster").decode()
            self.objects["secrets", name] = {"data": {"auth_token": token}}
        return 201, created

    def _selected(self, kind: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        label, _, value = query["labelSelector"][0].partition("=")
        found = [one for (its, _), one in self.objects.items() if its == kind]
        return [one for one in found if one["metadata"].get("labels", {}).get(label) == value]
