"""The client of a KFP API server: credentials, time limits, retries, and errors of one line.

SubmissionError          RegraftError, exit code 1: the server failed, or cannot be reached
|-- NoResponseError      no complete response, or a server error: the request may have been executed
`-- UnreachableError     no connection: the request was not executed
AccessError              InputError, exit code 2: the server requires other credentials
NotFoundError            InputError, exit code 2: the server does not have the object

A token is never part of a message: it is removed from what a server responds.
"""

from __future__ import annotations

import json
import re
import ssl
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp
import kfp_server_api
import tenacity
import urllib3
from kfp.client.token_credentials_base import TokenCredentialsBase
from kfp_server_api.rest import RESTClientObject

from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.printable import hide_secret, one_line

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750
OLDEST_SERVER = (2, 16)  # of Kubeflow Pipelines
# What a server with several users responds with status 401 if Kubernetes itself is away, so that it
# cannot check a token: `doTokenReview` in backend/src/apiserver/auth/authenticator_token_review.go
# (KFP 2.17.0).
TOKEN_NOT_CHECKED = "Failed to review the token"  # noqa: S105
MAX_WAIT_S = 10.0
MAX_MESSAGE = 300
MAX_TEXT = 2**24  # bytes of a log, or of a workflow, which Argo limits to 1 MiB


class SubmissionError(RegraftError):
    """The server failed, or its response is invalid."""


class NoResponseError(SubmissionError):
    """The request may have been executed, but there was no valid response."""


class UnreachableError(SubmissionError):
    """No connection to the server."""


class AccessError(InputError):
    """The server requires other credentials."""


class NotFoundError(InputError):
    """The server does not have the requested object."""


@dataclass(frozen=True)
class Connection:
    """How to connect to a server. `token_file` is read for each request, because tokens expire."""

    host: str
    namespace: str = ""
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    ca_cert: Path | None = None
    timeout_s: float = 30.0
    attempts: int = 5
    backoff_s: float = 0.5

    @property
    def credentials(self) -> str:
        """The origin of the token, for messages."""
        if self.token_file:
            return f"from {self.token_file}"
        return "from the command line" if self.token else "none"


def check_connection(connection: Connection) -> None:
    """Check URL, token and certificate before anything is sent.

    Raises:
        InputError: one of them is invalid. The token is not shown.
    """
    parts = urlsplit(connection.host)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        example = (
            f", such as https://{connection.host}" if connection.host and not parts.scheme else ""
        )
        raise InputError(f"host: expected http://... or https://...{example}, "
                         f"got {_without_password(connection.host)!r}")  # fmt: skip
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError("host: expected a URL without user, password, query and fragment; use "
                         "--token-file for credentials")  # fmt: skip
    if connection.token and connection.token_file:
        raise InputError("expected one of --existing-token and --token-file, got both")
    if connection.token:
        _checked_token(connection.token, "existing-token")
    if connection.token_file:
        read_token(connection.token_file)
    if connection.ca_cert:
        if parts.scheme == "http":
            raise InputError("ca-cert: expected an https host, got http")
        try:
            ssl.create_default_context(cafile=str(connection.ca_cert))
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"ca-cert: expected a file of PEM certificates, got {connection.ca_cert}: {reason}"
            ) from error


def read_token(path: Path) -> str:
    """Read a token from a file.

    Raises:
        InputError: the file cannot be read, or has no token. Its text is not shown.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise InputError(f"token-file: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InputError(f"token-file: expected a token in {path}, got other bytes") from None
    return _checked_token(text, f"token-file {path}")


def _checked_token(text: str, where: str) -> str:
    if not text:
        raise InputError(f"{where}: expected a token, got an empty text")
    if not _TOKEN.fullmatch(text):
        raise InputError(f"{where}: expected the bare token in one line, without 'Bearer'")
    return text


def check_version(host: str, version: str) -> None:
    """Check the version that a server reports; a text that is not a version is accepted.

    Raises:
        InputError: the server is older than `OLDEST_SERVER`.
    """
    found = re.match(r"v?(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < OLDEST_SERVER:
        oldest = ".".join(str(number) for number in OLDEST_SERVER)
        raise InputError(
            f"{host}: expected Kubeflow Pipelines {oldest} or later, got {version[:40]}"
        )


class Client(kfp.Client):
    """kfp's client with a transport that has time limits and bounded retries.

    kfp 2.17 sets no time limit, follows redirects to login pages, and retries a refused token five
    times before a stack trace.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.several_users = False
        credentials = _TokenFile(connection.token_file) if connection.token_file else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            super().__init__(
                host=connection.host,
                namespace=connection.namespace or "kubeflow",
                existing_token=connection.token or None,
                credentials=credentials,
                ssl_ca_cert=str(connection.ca_cert) if connection.ca_cert else None,
            )
        self._set_transport()

    def _set_transport(self) -> None:
        api = self._run_api.api_client  # all of kfp's services share it
        if not isinstance(api.rest_client, _Transport):
            api.rest_client = _Transport(api.configuration, self._connection)

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """Request the server's health, which kfp's constructor does without our errors.

        Raises:
            InputError: the server is older than `OLDEST_SERVER`.
        """
        self._set_transport()
        health = self._healthz_api.healthz_service_get_healthz()
        # The response has the version, but the generated model does not
        # (backend/src/apiserver/main.go). Servers built from source may report "unknown".
        body = json.loads(self._healthz_api.api_client.last_response.data)
        check_version(self._connection.host, str(body.get("tag_name") or ""))
        self.several_users = bool(health.multi_user)
        return health

    def create_run(self, run: kfp_server_api.V2beta1Run) -> str:
        """Create a run and return its ID; kfp's `run_pipeline` takes only some of the fields."""
        return str(self._run_api.run_service_create_run(run=run).run_id)

    def get_workflow(self, run_id: str) -> str:
        """Return Argo's workflow of a run as JSON, from the older API; kfp's client has no call.

        Raises:
            RegraftError: the server does not respond, or does not have it.
        """
        try:
            found = json.loads(self._get(f"/apis/v1beta1/runs/{run_id}"))
            return str(found["pipeline_runtime"]["workflow_manifest"])
        except (ValueError, KeyError, TypeError):
            host = self._connection.host
            raise NotFoundError(f"{host}: the server does not have the workflow") from None

    def read_log(self, run_id: str, node: str) -> str:
        """Return the end of the log of a node of Argo's workflow.

        Raises:
            RegraftError: the server does not respond, or does not have it.
        """
        text = self._get(f"/apis/v1alpha1/runs/{run_id}/nodes/{node}/log")
        # The server sends its error after a status 200; the UI sends its own page.
        if text.startswith('{"error_message":') or "<html" in text[:1000].lower():
            raise NotFoundError(f"{self._connection.host}: the server does not have the log")
        return text

    def _get(self, path: str) -> str:
        """Return the end of a response that is not necessarily JSON."""
        api = self._run_api.api_client
        headers: dict[str, str] = {}
        api.update_params_for_auth(headers, [], ["Bearer"])
        return str(api.rest_client.get_text(f"{api.configuration.host}{path}", headers))


class _TokenFile(TokenCredentialsBase):
    def __init__(self, path: Path) -> None:
        self._path = path

    def refresh_api_key_hook(self, config: Any) -> None:
        config.api_key["authorization"] = read_token(self._path)


class _Transport(RESTClientObject):
    """Sends one request. Only GET is retried, because others may have been executed."""

    def __init__(self, configuration: Any, connection: Connection) -> None:
        super().__init__(configuration)
        self._connection = connection
        self.pool_manager.connection_pool_kw["retries"] = urllib3.Retry(
            total=0, raise_on_redirect=False
        )

    def request(self, method: str, url: str, **values: Any) -> Any:
        attempts = self._connection.attempts if method.upper() == "GET" else 1
        return retrying(self._connection, attempts)(self._request_once, method, url, **values)

    def get_text(self, url: str, headers: dict[str, str]) -> str:
        """Send one GET request, and return the last `MAX_TEXT` bytes of its response as text."""
        limit = urllib3.Timeout(self._connection.timeout_s)
        text = b""
        try:
            response = self.pool_manager.request(
                "GET", url, headers=headers, preload_content=False, timeout=limit
            )
            for part in response.stream(MAX_TEXT):
                text = (text + part)[-MAX_TEXT:]
        except urllib3.exceptions.HTTPError as error:
            raise self._failure(error, headers) from None
        if response.status != 200:
            raise SubmissionError(f"{self._connection.host}: the server failed ({response.status})")
        return text.decode("utf-8", "replace")

    def _request_once(self, method: str, url: str, **values: Any) -> Any:
        values["_request_timeout"] = (self._connection.timeout_s, self._connection.timeout_s)
        try:
            return self._checked(super().request(method, url, **values))
        except (urllib3.exceptions.HTTPError, kfp_server_api.ApiException) as error:
            # Without the cause, which quotes headers.
            raise self._failure(error, values.get("headers") or {}) from None

    def _checked(self, response: Any) -> Any:
        """Return a response if it is JSON; a login page has status 200 and HTML."""
        try:
            json.loads(response.data)
        except ValueError:
            kind = str(response.getheader("content-type") or "no type")[:60]
            raise AccessError(
                f"{self._connection.host}: expected the API of Kubeflow Pipelines, got {kind}; "
                "this is a login page or another service"
            ) from None
        return response

    def _failure(self, error: Exception, headers: dict[str, str]) -> RegraftError:
        host, seconds = self._connection.host, self._connection.timeout_s
        cause = getattr(error, "reason", None) or error
        if isinstance(error, kfp_server_api.ApiException) and error.status:
            return self._refusal(error, headers)
        if "SSLError" in str(error) or isinstance(cause, urllib3.exceptions.SSLError):
            return InputError(f"{host}: no TLS connection: {_reason(cause)} (see --ca-cert)")
        if isinstance(cause, urllib3.exceptions.ReadTimeoutError):
            return NoResponseError(f"{host}: no response within {seconds:g} s")
        if isinstance(
            cause, urllib3.exceptions.ConnectTimeoutError | urllib3.exceptions.NewConnectionError
        ):
            return UnreachableError(f"{host}: cannot be reached: {_reason(cause)}")
        return NoResponseError(f"{host}: the connection broke: {_reason(cause)}")

    def _refusal(self, error: Any, headers: dict[str, str]) -> RegraftError:
        host, status = self._connection.host, int(error.status)
        message = _message(error.body, headers)
        message = f": {message}" if message else ""
        if status == 401 and TOKEN_NOT_CHECKED in _text(error.body):
            return NoResponseError(f"{host}: the server could not check the token (401){message}")
        if status == 401:
            credentials = self._connection.credentials
            text = "the token is missing, expired or for another server (401)"
            return AccessError(f"{host}: {text}, token: {credentials}{message}")
        if status == 403:
            namespace = self._connection.namespace or "not set"
            return AccessError(f"{host}: no permission (403), namespace: {namespace}{message}")
        if 300 <= status < 400:
            return AccessError(f"{host}: expected the API, got a redirect ({status}), perhaps to a "
                               "login page; check the URL and the token")  # fmt: skip
        if status == 404:
            return NotFoundError(f"{host}: the server refused the request (404){message}")
        if status == 429 or status >= 500:
            return NoResponseError(f"{host}: the server failed ({status}){message}")
        return InputError(f"{host}: the server refused the request ({status}){message}")


def retrying(connection: Connection, attempts: int) -> tenacity.Retrying:
    """Return the policy of all retries: after lost requests only, with random growing waits."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((NoResponseError, UnreachableError)),
        stop=tenacity.stop_after_attempt(attempts),
        wait=tenacity.wait_random_exponential(multiplier=connection.backoff_s, max=MAX_WAIT_S),
        reraise=True,
    )


def _text(body: Any) -> str:
    return body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")


def _message(body: Any, headers: dict[str, str]) -> str:
    """Return the error message of a response, in one short line without the token."""
    text = _text(body)
    try:
        response = json.loads(text)
        text = str(response.get("message") or response.get("error") or "")
    except (ValueError, AttributeError):
        text = "" if "<html" in text.lower() else text
    for name, value in headers.items():
        if name.lower() in ("authorization", "cookie"):
            text = text.replace(value, "***") if value else text
            text = hide_secret(text, value.removeprefix("Bearer "))
    text = one_line(text)
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}..."


def _reason(error: object) -> str:
    """Return the innermost cause of urllib3's nested errors, without memory addresses."""
    while isinstance(error, BaseException):
        inner = [arg for arg in (*error.args, getattr(error, "reason", None), error.__cause__)
                 if isinstance(arg, BaseException)]  # fmt: skip
        if not inner:
            break
        error = inner[-1]
    text = re.sub(r"<[^>]*object at 0x[0-9a-f]+>:?\s*", "", str(error))
    return text.strip() or type(error).__name__


def _without_password(host: str) -> str:
    """Return a URL without user and password."""
    return host.rsplit("@", 1)[-1][:100]
