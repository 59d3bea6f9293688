"""The way to a KFP API server: credentials, time limits, tries, and errors of one line.

SubmissionError          RegraftError, exit code 1: the server failed, or none can be reached
|-- LostError            no whole answer, or a failure of the server: the request may have been done
`-- UnreachableError     no connection: the request was not done
AccessError              InputError, exit code 2: the server wants other credentials

A token is never part of a message: what a server says is searched for it.
"""

from __future__ import annotations

import json
import random
import re
import ssl
import threading
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp
import kfp_server_api
import urllib3
from kfp.client.token_credentials_base import TokenCredentialsBase
from kfp_server_api.rest import RESTClientObject

from regraft_core.runtime.errors import InputError, RegraftError

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750
MAX_WAIT_S = 10.0
MAX_SAID = 300


class SubmissionError(RegraftError):
    """The server failed, or what it answers cannot be used."""


class NoResponseError(SubmissionError):
    """The request may have been done, but no good answer came."""


class UnreachableError(SubmissionError):
    """There is no connection to the server."""


class AccessError(InputError):
    """The server wants other credentials."""


@dataclass(frozen=True)
class Connection:
    """How to reach a server. `token_file` is read anew for each request, as tokens are renewed."""

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
        """What stands for the token where people read."""
        given = "given on the command line" if self.token else "none"
        return f"from {self.token_file}" if self.token_file else given


def check_connection(connection: Connection) -> None:
    """Check address, token and certificate before anything is sent.

    Raises:
        InputError: one of them is unusable. The token is not shown.
    """
    parts = urlsplit(connection.host)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        scheme = (
            f", as in https://{connection.host}" if connection.host and not parts.scheme else ""
        )
        raise InputError(f"host: expected http://... or https://...{scheme}, "
                         f"got {_bare(connection.host)!r}")  # fmt: skip
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError("host: expected an address without user, password, query and fragment; "
                         "credentials go to --token-file")  # fmt: skip
    if connection.token and connection.token_file:
        raise InputError("expected one of --existing-token and --token-file, got both")
    if connection.token:
        _checked_token(connection.token, "existing-token")
    if connection.token_file:
        read_token(connection.token_file)
    if connection.ca_cert:
        if parts.scheme == "http":
            raise InputError("ca-cert: expected a host of https, got one of http")
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
        InputError: the file cannot be read, or holds no token. Its text is not shown.
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


class Client(kfp.Client):
    """kfp's client behind a transport with time limits and bounded tries.

    kfp 2.17 sets no time limit, follows redirects to login pages, and answers a refused token by
    five tries and a stack trace.
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
        self._bound()

    def _bound(self) -> None:
        api = self._run_api.api_client  # all of kfp's services share it
        if not isinstance(api.rest_client, _Transport):
            api.rest_client = _Transport(api.configuration, self._connection)

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """Ask how the server is, as kfp's constructor does; failures are ours."""
        self._bound()
        answer = self._healthz_api.healthz_service_get_healthz()
        self.several_users = bool(answer.multi_user)
        return answer


class _TokenFile(TokenCredentialsBase):
    def __init__(self, path: Path) -> None:
        self._path = path

    def refresh_api_key_hook(self, config: Any) -> None:
        config.api_key["authorization"] = read_token(self._path)


class _Transport(RESTClientObject):
    """Sends one request: GET is tried again, all else once, as it may have been done."""

    def __init__(self, configuration: Any, connection: Connection) -> None:
        super().__init__(configuration)
        self._connection = connection
        self.pool_manager.connection_pool_kw["retries"] = urllib3.Retry(
            total=0, raise_on_redirect=False
        )

    def request(self, method: str, url: str, **values: Any) -> Any:
        tries = self._connection.attempts if method.upper() == "GET" else 1
        values["_request_timeout"] = (self._connection.timeout_s, self._connection.timeout_s)
        for attempt in range(tries):
            try:
                return self._answer(super().request(method, url, **values))
            except (NoResponseError, UnreachableError):
                raise
            except (urllib3.exceptions.HTTPError, kfp_server_api.ApiException) as error:
                failure = self._failure(error, values.get("headers") or {})
            if attempt + 1 == tries or not isinstance(failure, NoResponseError | UnreachableError):
                raise failure from None  # the causes quote headers
            pause(self._connection, attempt)
        raise AssertionError("unreachable")

    def _answer(self, response: Any) -> Any:
        """Return a response of JSON; a login page answers with 200 and HTML."""
        try:
            json.loads(response.data)
        except ValueError:
            kind = str(response.getheader("content-type") or "no type")[:60]
            raise AccessError(
                f"{self._connection.host}: expected the API of Kubeflow Pipelines, got {kind}; "
                "a login page or another service stands there"
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
            return NoResponseError(f"{host}: no answer within {seconds:g} s")
        if isinstance(cause, urllib3.exceptions.ConnectTimeoutError):
            # NewConnectionError is one of them in this version of urllib3.
            return UnreachableError(f"{host}: cannot be reached: {_reason(cause)}")
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            return UnreachableError(f"{host}: cannot be reached: {_reason(cause)}")
        return NoResponseError(f"{host}: the connection broke: {_reason(cause)}")

    def _refusal(self, error: Any, headers: dict[str, str]) -> RegraftError:
        host, status = self._connection.host, int(error.status)
        said = _said(error.body, headers)
        said = f": {said}" if said else ""
        if status == 401:
            held = self._connection.credentials
            return AccessError(f"{host}: the token is missing, expired or of another server (401), "
                               f"token: {held}{said}")  # fmt: skip
        if status == 403:
            namespace = self._connection.namespace or "not given"
            return AccessError(f"{host}: no permission (403), namespace: {namespace}{said}")
        if 300 <= status < 400:
            return AccessError(f"{host}: redirects elsewhere ({status}), as to a login page; "
                               "expected the API itself and a token")  # fmt: skip
        if status == 429 or status >= 500:
            return NoResponseError(f"{host}: the server failed ({status}){said}")
        return InputError(f"{host}: the server refused the request ({status}){said}")


def pause(connection: Connection, attempt: int) -> None:
    """Wait before the next try, ever longer and at random, lest all come back at once."""
    ceiling = min(MAX_WAIT_S, connection.backoff_s * 2**attempt)
    threading.Event().wait(random.uniform(0.5, 1.0) * ceiling)  # noqa: S311


def _said(body: Any, headers: dict[str, str]) -> str:
    """Return what a server says about an error, in one short line without the token."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    try:
        answer = json.loads(text)
        text = str(answer.get("message") or answer.get("error") or "")
    except (ValueError, AttributeError):
        text = "" if "<html" in text.lower() else text
    for name, value in headers.items():
        if name.lower() in ("authorization", "cookie"):
            for secret in (value, value.removeprefix("Bearer ")):
                text = text.replace(secret, "***") if secret else text
    text = " ".join(text.split())
    return text if len(text) <= MAX_SAID else f"{text[:MAX_SAID]}..."


def _reason(error: object) -> str:
    """Return the innermost cause of urllib3's nested errors, without addresses in memory."""
    while isinstance(error, BaseException):
        inner = [arg for arg in (*error.args, getattr(error, "reason", None), error.__cause__)
                 if isinstance(arg, BaseException)]  # fmt: skip
        if not inner:
            break
        error = inner[-1]
    text = re.sub(r"<[^>]*object at 0x[0-9a-f]+>:?\s*", "", str(error))
    return text.strip() or type(error).__name__


def _bare(host: str) -> str:
    """Return an address without what may be a password."""
    return host.rsplit("@", 1)[-1][:100]
