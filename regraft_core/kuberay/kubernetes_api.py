"""The few calls of the Kubernetes API that a pod makes for the Ray cluster of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft_core.runtime.errors import InputError, UnavailableError
from regraft_core.runtime.printable import one_line

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts the token of a pod's service account."""
TIMEOUT_S = (10, 60)  # to connect, to read
ATTEMPTS, BACKOFF_S = 5, 0.5
_RETRIED = (429, 500, 502, 503, 504)
_REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True)
class Collection:
    """The objects of one kind in a namespace; `group` is empty for the core API."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str, name: str = "") -> str:
        """Return the path of the collection, or of one of its objects."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return f"{root}/namespaces/{namespace}/{self.plural}{f'/{name}' if name else ''}"

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


@dataclass(frozen=True)
class KubernetesApi:
    """The API server, as the service account of a pod.

    Attributes:
        host: URL of the server.
        namespace: of the pod and of all objects.
        token_file: is read for each request, because Kubernetes renews it.
        ca_file: certificate authority of the server.
        backoff_s: first wait before a request is repeated; later ones double.
    """

    host: str
    namespace: str
    token_file: Path
    ca_file: Path | None = None
    backoff_s: float = BACKOFF_S

    def find(self, path: str) -> dict[str, Any] | None:
        """Return an object or a list, or None if it does not exist.

        Raises:
            InputError: no permission.
            UnavailableError: the server does not respond.
        """
        status, found = self._request("GET", path)
        return None if status == 404 else found

    def create(self, collection: Collection, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object, or return the one of this name, such as after a lost response.

        Raises:
            InputError: no permission, or the server refuses the manifest.
            UnavailableError: the server does not respond.
        """
        status, created = self._request("POST", collection.path(self.namespace), manifest)
        if status != 409:
            return created
        name = manifest["metadata"]["name"]
        existing = self.find(collection.path(self.namespace, name))
        if existing is None:
            raise UnavailableError(f"{collection} {name}: was removed while it was created")
        return existing

    def delete(self, collection: Collection, name: str) -> bool:
        """Delete an object, and what it owns; return whether it existed.

        Raises:
            InputError: no permission.
            UnavailableError: the server does not respond.
        """
        status, _ = self._request("DELETE", collection.path(self.namespace, name))
        return status != 404

    def allows(self, verb: str, collection: Collection) -> bool:
        """Return whether the service account has a right on a collection in its namespace.

        Raises:
            UnavailableError: the server does not respond.
        """
        attributes = {
            "namespace": self.namespace,
            "verb": verb,
            "group": collection.group,
            "resource": collection.plural,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        _, answer = self._request("POST", _REVIEW, review)
        return bool(answer.get("status", {}).get("allowed"))

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Return the status and the object of a response; 404 and 409 are no errors."""
        import requests

        token = self.token_file.read_text(encoding="utf-8").strip()
        try:
            with self._session() as session:
                response = session.request(
                    method, self.host + path, json=body, timeout=TIMEOUT_S,
                    headers={"Authorization": f"Bearer {token}"}, allow_redirects=False,
                    verify=str(self.ca_file) if self.ca_file else True,
                )  # fmt: skip
        except requests.RequestException as error:
            raise UnavailableError(
                f"Kubernetes API: no response to {method} {path}: {type(error).__name__}"
            ) from error
        try:
            found = response.json()
        except ValueError:
            found = {}
        if response.ok or response.status_code in (404, 409):
            return response.status_code, found
        message = one_line(str(found.get("message", response.reason)))[:300]
        kind = UnavailableError if response.status_code in _RETRIED else InputError
        raise kind(f"Kubernetes API: {method} {path}: {response.status_code}: {message}")

    def _session(self) -> Any:
        import requests
        import requests.adapters
        import urllib3

        # A repeated POST is safe: if the first one succeeded, the response is 409.
        retry = urllib3.Retry(
            ATTEMPTS - 1, backoff_factor=self.backoff_s, backoff_jitter=self.backoff_s,
            status_forcelist=_RETRIED, allowed_methods=None, raise_on_status=False,
        )  # fmt: skip
        session = requests.Session()
        session.trust_env = False  # a proxy of the environment is for other hosts
        for scheme in ("https://", "http://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retry))
        return session


def api_of_pod(environ: Mapping[str, str], account: Path = ACCOUNT) -> KubernetesApi:
    """Return the API server of the Kubernetes cluster that this pod is in.

    Args:
        environ: environment variables of the pod.
        account: folder with `token`, `ca.crt` and `namespace`.

    Raises:
        InputError: this is not a pod, or it has no token of a service account.
    """
    host, port = (environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
    namespace = account / "namespace"
    if not host or not namespace.is_file():
        raise InputError("ray_nodes: expected a pod with the token of a service account, found "
                         "none; only a run on Kubeflow creates a Ray cluster")  # fmt: skip
    host = f"[{host}]" if ":" in host else host  # IPv6
    return KubernetesApi(
        f"https://{host}:{port or 443}",
        namespace.read_text(encoding="utf-8").strip(),
        account / "token",
        account / "ca.crt",
    )


def decode_secret(found: Mapping[str, Any], key: str) -> str:
    """Return a value of a secret that the API returned, or an empty text."""
    import base64

    return base64.b64decode(found.get("data", {}).get(key, "")).decode()
