"""The REST protocol as pure functions: request bodies from values, values from responses."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .clients import ApiRequest, check_available, check_metadata
from .errors import InvalidInputError, http_error, unreadable
from .results import (
    ERROR,
    ClassScore,
    Metadata,
    Prediction,
    SignatureInfo,
    TensorInfo,
    VersionStatus,
    check_images,
    check_scores,
    join_outputs,
)

EXAMPLE_KEY = "image/encoded"
CLASSIFY, FEATURES = "classify", "features"


class Call(NamedTuple):
    """One HTTP request: method, path, body."""

    method: str
    path: str
    body: bytes = b""


@dataclass(frozen=True)
class RestRequests:
    """The requests of TF Serving's REST API for one model; `path` is the model's.

    `by_label` is whether the path ends with a label.
    """

    path: str
    by_label: bool = False

    def predict(self, images: Sequence[bytes]) -> ApiRequest[list[Prediction]]:
        """Implement `ModelRequests.predict`."""
        return ApiRequest(predict_call(self.path, images), parse_predictions)

    def classify(self, images: Sequence[bytes]) -> ApiRequest[list[list[ClassScore]]]:
        """Implement `ModelRequests.classify`."""
        return ApiRequest(classify_call(self.path, images), parse_classes)

    def features(self, images: Sequence[bytes]) -> ApiRequest[list[tuple[float, ...]]]:
        """Implement `ModelRequests.features`."""
        return ApiRequest(predict_call(self.path, images, FEATURES), parse_features)

    def status(self) -> ApiRequest[list[VersionStatus]]:
        """Implement `ModelRequests.status`."""
        return ApiRequest(Call("GET", self.path), parse_status)

    def readiness(self) -> ApiRequest[None]:
        """Implement `ModelRequests.readiness`."""
        if self.by_label:
            return ApiRequest(self.metadata().call, check_metadata)
        return ApiRequest(self.status().call, lambda value: check_available(parse_status(value)))

    def metadata(self) -> ApiRequest[Metadata]:
        """Implement `ModelRequests.metadata`."""
        return ApiRequest(Call("GET", f"{self.path}/metadata"), parse_metadata)


def parse_address(address: str) -> tuple[str, str]:
    """Return the origin ("http://host:port") and the path before the API's of an address.

    The address may end with the API's own path, `/v1/models/`.

    Raises:
        InvalidInputError: it is not "host:port", "http://host:port" or "https://host:port/prefix".
    """
    try:
        parts = urllib.parse.urlsplit(address if "://" in address else f"http://{address}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:  # also a port that is not a number
        text = f"expected host:port or http(s)://host:port, got {address!r}"
        raise InvalidInputError(text) from None
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/").removesuffix("/v1/models")


def model_path(model: str, version: int | None, label: str | None) -> str:
    """Return the path of a model, one of its versions or one of its labels.

    Raises:
        InvalidInputError: both a version and a label are given.
    """
    if version is not None and label is not None:
        raise InvalidInputError("expected a version or a label, got both")
    path = f"/v1/models/{urllib.parse.quote(model, safe='')}"
    if version is not None:
        return f"{path}/versions/{version}"
    if label is not None:
        return f"{path}/labels/{urllib.parse.quote(label, safe='')}"
    return path


def predict_call(path: str, images: Sequence[bytes], signature: str = "") -> Call:
    """Return the call that sends encoded images in column form."""
    document: dict[str, Any] = {"inputs": [_b64(image) for image in images]}
    if signature:
        document["signature_name"] = signature
    return Call("POST", f"{path}:predict", json.dumps(document).encode())


def classify_call(path: str, images: Sequence[bytes]) -> Call:
    """Return the call of the Classify API."""
    examples = [{EXAMPLE_KEY: _b64(image)} for image in images]
    document = {"signature_name": CLASSIFY, "examples": examples}
    return Call("POST", f"{path}:classify", json.dumps(document).encode())


def parse_response(status: int, body: bytes) -> Any:
    """Return the JSON value of a response.

    Raises:
        RegraftClientError: the response is an error, or is not JSON.
    """
    if 300 <= status < 400:
        raise unreadable("it is a redirect, which is not followed")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        if status != 200:
            raise http_error(status, body[:200].decode("utf-8", "replace")) from None
        raise unreadable("expected JSON") from None
    if status != 200:
        message = value.get("error", "") if isinstance(value, dict) else str(value)
        raise http_error(status, str(message))
    return value


def parse_predictions(value: Any) -> list[Prediction]:
    """Parse the outputs of `serving_default`."""
    outputs = _member(value, "outputs")
    return join_outputs(
        _member(outputs, "label"),
        _member(outputs, "confidence"),
        _member(outputs, "probabilities"),
        outputs.get("familiar"),
        outputs.get(ERROR),
        label_sets=outputs.get("label_set"),
        abstain=outputs.get("abstain"),
        selected=outputs.get("selected"),
    )


def parse_features(value: Any) -> list[tuple[float, ...]]:
    """Parse the output `features`, one row per image; an only output has no name."""
    outputs, reasons = _member(value, "outputs"), None
    if isinstance(outputs, dict):
        outputs, reasons = _member(outputs, FEATURES), outputs.get(ERROR)
    return check_images([tuple(map(float, row)) for row in outputs], reasons)


def parse_classes(value: Any) -> list[list[ClassScore]]:
    """Parse the results of the Classify API."""
    rows = _member(value, "results")
    return check_scores([[ClassScore(label, float(score)) for label, score in row] for row in rows])


def parse_status(value: Any) -> list[VersionStatus]:
    """Parse the states of a model's versions."""
    return [
        VersionStatus(
            int(item["version"]),
            item["state"],
            item["status"]["error_code"],
            item["status"]["error_message"],
        )
        for item in _member(value, "model_version_status")
    ]


def parse_metadata(value: Any) -> Metadata:
    """Parse a model's signatures."""
    spec = _member(value, "model_spec")
    signatures = _member(value, "metadata")["signature_def"]["signature_def"]
    return Metadata(
        spec["name"],
        int(spec["version"]),
        {
            name: SignatureInfo(
                item["method_name"], _tensors(item["inputs"]), _tensors(item["outputs"])
            )
            for name, item in signatures.items()
            if not name.startswith("__")
        },
    )


def _tensors(items: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {
        alias: TensorInfo(
            item["name"],
            item["dtype"],
            None
            if item["tensor_shape"]["unknown_rank"]
            else tuple(int(dim["size"]) for dim in item["tensor_shape"]["dim"]),
        )
        for alias, item in items.items()
    }


def _b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode("ascii")}


def _member(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        received = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise unreadable(f"expected {name!r}, got {received}")
    return value[name]
