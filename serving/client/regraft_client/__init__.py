"""Clients of TF Serving's protocol by REST and gRPC; neither imports TensorFlow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    AccessError,
    BadRequestError,
    BusyError,
    ConnectionFailedError,
    DeadlineError,
    InvalidImageError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    RegraftClientError,
    ResponseError,
    ServerFailedError,
    UnavailableError,
    UnsupportedError,
)
from .results import ClassScore, Metadata, Prediction, SignatureInfo, TensorInfo, VersionStatus
from .retries import NO_RETRIES, Retries

__all__ = [
    "NO_RETRIES",
    "AccessError",
    "AsyncClient",
    "AsyncGrpcClient",
    "AsyncRestClient",
    "BadRequestError",
    "BusyError",
    "ClassScore",
    "ConnectionFailedError",
    "DeadlineError",
    "GrpcClient",
    "InvalidImageError",
    "InvalidInputError",
    "Metadata",
    "NotFoundError",
    "OverloadedError",
    "Prediction",
    "RegraftClientError",
    "ResponseError",
    "RestClient",
    "Retries",
    "ServerFailedError",
    "SignatureInfo",
    "SyncClient",
    "TensorInfo",
    "Tls",
    "UnavailableError",
    "UnsupportedError",
    "VersionStatus",
]

if TYPE_CHECKING:
    from .clients import AsyncClient, SyncClient
    from .grpc import AsyncGrpcClient, GrpcClient, Tls
    from .rest import AsyncRestClient, RestClient
else:
    # Imported at first use, so that a program with one protocol does not load the other's library.
    _LAZY = {
        "AsyncClient": ".clients",
        "SyncClient": ".clients",
        "AsyncGrpcClient": ".grpc",
        "GrpcClient": ".grpc",
        "Tls": ".grpc",
        "AsyncRestClient": ".rest",
        "RestClient": ".rest",
    }

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_LAZY[name], __name__), name)
