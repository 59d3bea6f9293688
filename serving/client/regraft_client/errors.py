"""What can go wrong between a client and a server.

ServingClientError            RegraftError, exit code 1
|-- ConnectionFailedError     no server there, or it went away
|-- DeadlineError             no answer in time
`-- AnswerError               the server answered with a status other than OK
    |-- BadRequestError       INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE (HTTP 400)
    |-- NotFoundError         NOT_FOUND (404): no such model or version
    |-- AccessError           UNAUTHENTICATED, PERMISSION_DENIED (401, 403)
    |-- OverloadedError       RESOURCE_EXHAUSTED (429, 413)
    |-- UnavailableError      UNAVAILABLE (503): the one that is tried again
    |-- UnsupportedError      UNIMPLEMENTED (501)
    `-- ServerFailedError     anything else
"""

from __future__ import annotations

from regraft_core.runtime.errors import RegraftError


class ServingClientError(RegraftError):
    """Base of a client's errors."""


class ConnectionFailedError(ServingClientError):
    """No server answers at the address."""


class DeadlineError(ServingClientError):
    """The answer did not come in time."""


class AnswerError(ServingClientError):
    """The server answered with an error; `code` is the name of the gRPC status."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class BadRequestError(AnswerError):
    """The request does not fit the model."""


class NotFoundError(AnswerError):
    """No such model or version is served."""


class AccessError(AnswerError):
    """The server refuses this client."""


class OverloadedError(AnswerError):
    """The request is too large, or a quota is used up."""


class UnavailableError(AnswerError):
    """The server cannot answer now; trying again may help."""


class UnsupportedError(AnswerError):
    """The server does not know the method or the type."""


class ServerFailedError(AnswerError):
    """The server failed."""


_BY_CODE: dict[str, type[AnswerError]] = {
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
_CODE_OF_HTTP = {
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


def answer_error(code: str, message: str) -> ServingClientError:
    """Return the error for a status by the name of its gRPC code."""
    if code == "DEADLINE_EXCEEDED":
        return DeadlineError(f"{code}: {message}")
    return _BY_CODE.get(code, ServerFailedError)(code, message)


def http_error(status: int, message: str) -> ServingClientError:
    """Return the error for an HTTP status."""
    return answer_error(_CODE_OF_HTTP.get(status, "INTERNAL"), message)
