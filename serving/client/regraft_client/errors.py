"""Errors of the clients.

RegraftClientError            base class; catches all of them
|-- InvalidInputError         an argument cannot be used; nothing was sent (also a ValueError)
|-- ConnectionFailedError     no server at the address, or the connection was lost
|-- DeadlineError             no response in time
`-- ResponseError             the server responded with a status other than OK
    |-- BadRequestError       INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE (HTTP 400)
    |   `-- InvalidImageError an image cannot be decoded; has the results of the others
    |-- NotFoundError         NOT_FOUND (404): no such model or version
    |-- AccessError           UNAUTHENTICATED, PERMISSION_DENIED (401, 403)
    |-- OverloadedError       RESOURCE_EXHAUSTED (429, 413)
    |   `-- BusyError         the same, because all threads of the server are in use
    |-- UnavailableError      UNAVAILABLE (503)
    |-- UnsupportedError      UNIMPLEMENTED (501)
    `-- ServerFailedError     any other status, or a response that cannot be parsed

`UnavailableError`, `BusyError` and `ConnectionFailedError` are retried, see `Retries`; the others
are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class RegraftClientError(Exception):
    """Base class of the clients' errors; the text is one line."""


class InvalidInputError(RegraftClientError, ValueError):
    """An argument, a file or an address given by the caller cannot be used."""


class ConnectionFailedError(RegraftClientError):
    """No server responds at the address."""


class DeadlineError(RegraftClientError):
    """The response did not arrive in time."""


class ResponseError(RegraftClientError):
    """The server responded with an error; `code` is the name of the gRPC status."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class BadRequestError(ResponseError):
    """The request does not match the model."""


class InvalidImageError(BadRequestError):
    """Images of a request cannot be decoded.

    `reasons` has the reason of each of them, by its index in the request; `results` has the results
    of all images in their order, with None for an invalid one.
    """

    def __init__(self, reasons: Mapping[int, str], results: Sequence[Any]) -> None:
        index, reason = min(reasons.items())
        more = f" (and {len(reasons) - 1} more invalid images)" if len(reasons) > 1 else ""
        super().__init__("INVALID_ARGUMENT", f"image {index}: {reason}{more}")
        self.reasons = reasons
        self.results = results


class NotFoundError(ResponseError):
    """No such model or version is served."""


class AccessError(ResponseError):
    """The server refuses this client."""


class OverloadedError(ResponseError):
    """The request is too large, or a quota is exhausted."""


class BusyError(OverloadedError):
    """All threads of the server are in use and the request did not run; a retry may succeed."""


class UnavailableError(ResponseError):
    """The server cannot respond now; a retry may succeed."""


class UnsupportedError(ResponseError):
    """The server does not support the method or the data type."""


class ServerFailedError(ResponseError):
    """The server failed, or its response cannot be parsed."""


_BY_CODE: dict[str, type[ResponseError]] = {
    "INVALID_ARGUMENT": BadRequestError,
    "FAILED_PRECONDITION": BadRequestError,
    "OUT_OF_RANGE": BadRequestError,
    "NOT_FOUND": NotFoundError,
    "UNAUTHENTICATED": AccessError,
    "PERMISSION_DENIED": AccessError,
    "RESOURCE_EXHAUSTED": OverloadedError,
    "UNAVAILABLE": UnavailableError,
    "UNIMPLEMENTED": UnsupportedError,
}
_CODE_BY_HTTP_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


# The messages of gRPC's servers: of C++ (kServerThreadpoolExhausted in src/cpp/server/server_cc.cc
# of gRPC 1.65), as in TF Serving, and of Python (maximum_concurrent_rpcs).
_BUSY = ("server threadpool exhausted", "concurrent rpc limit exceeded")


def status_error(code: str, message: str) -> RegraftClientError:
    """Return the error of a status, given by the name of its gRPC code."""
    if code == "DEADLINE_EXCEEDED":
        return DeadlineError(f"{code}: {message}")
    if code == "RESOURCE_EXHAUSTED" and message.lower().startswith(_BUSY):
        return BusyError(code, message)
    return _BY_CODE.get(code, ServerFailedError)(code, message)


def http_error(status: int, message: str) -> RegraftClientError:
    """Return the error of an HTTP status."""
    return status_error(_CODE_BY_HTTP_STATUS.get(status, "INTERNAL"), message)


def unreadable(problem: str) -> ServerFailedError:
    """Return the error of a response that does not follow the protocol."""
    return ServerFailedError("INTERNAL", f"the server's response cannot be read: {problem}")
