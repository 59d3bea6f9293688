"""An image that a model cannot decode is an error of that image alone, by both protocols."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from regraft_client import (
    AsyncGrpcClient,
    BadRequestError,
    ClassScore,
    InvalidImageError,
    Prediction,
    grpc_wire,
    rest_wire,
    serving_pb2,
)
from regraft_client.predict_files import PredictOptions, predict_files
from regraft_client.results import UNDECODABLE

REASON = "expected an image as JPEG, PNG, GIF, BMP or WebP, got other bytes"
LABELS, CONFIDENCES = ["cat", "", "dog"], [0.75, 0.0, 0.5]
PROBABILITIES = [(0.75, 0.25), (0.0, 0.0), (0.5, 0.5)]
FEATURES = [(1.0, 2.0), (0.0, 0.0), (3.0, 4.0)]
EXPECTED = [Prediction("cat", 0.75, (0.75, 0.25)), None, Prediction("dog", 0.5, (0.5, 0.5))]


def strings(*values: str) -> Any:
    return serving_pb2.TensorProto(
        dtype=serving_pb2.DT_STRING, string_val=[value.encode() for value in values]
    )


def floats(rows: list[Any]) -> Any:
    flat = [value for row in rows for value in (row if isinstance(row, tuple) else (row,))]
    tensor = serving_pb2.TensorProto(
        dtype=serving_pb2.DT_FLOAT, tensor_content=struct.pack(f"<{len(flat)}f", *flat)
    )
    for size in (len(rows), len(flat) // len(rows))[: 1 + isinstance(rows[0], tuple)]:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def by_grpc(**outputs: Any) -> Any:
    return serving_pb2.PredictResponse(outputs=outputs)


def predictions_by(protocol: str, reasons: list[str]) -> list[Prediction]:
    if protocol == "rest":
        outputs = {"label": LABELS, "confidence": CONFIDENCES, "probabilities": PROBABILITIES}
        return rest_wire.parse_predictions({"outputs": {**outputs, "error": reasons}})
    return grpc_wire.parse_predictions(
        by_grpc(label=strings(*LABELS), confidence=floats(CONFIDENCES),
                probabilities=floats(PROBABILITIES), error=strings(*reasons))
    )  # fmt: skip


def features_by(protocol: str, reasons: list[str]) -> list[tuple[float, ...]]:
    if protocol == "rest":
        return rest_wire.parse_features({"outputs": {"features": FEATURES, "error": reasons}})
    return grpc_wire.parse_features(by_grpc(features=floats(FEATURES), error=strings(*reasons)))


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_predictions_of_the_other_images_are_in_the_error(protocol: str) -> None:
    with pytest.raises(InvalidImageError) as raised:
        predictions_by(protocol, ["", REASON, ""])
    assert raised.value.reasons == {1: REASON}
    assert raised.value.results == EXPECTED
    assert str(raised.value) == f"INVALID_ARGUMENT: image 1: {REASON}"
    assert isinstance(raised.value, BadRequestError)
    with pytest.raises(InvalidImageError, match=r"image 0: a \(and 2 more invalid images\)"):
        predictions_by(protocol, ["a", "b", "c"])
    assert len(predictions_by(protocol, ["", "", ""])) == 3


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_features_of_the_other_images_are_in_the_error(protocol: str) -> None:
    assert features_by(protocol, ["", "", ""]) == FEATURES
    with pytest.raises(InvalidImageError) as raised:
        features_by(protocol, ["", REASON, ""])
    assert raised.value.results == [FEATURES[0], None, FEATURES[2]]


def test_features_without_the_output_error_are_read() -> None:
    assert rest_wire.parse_features({"outputs": FEATURES}) == FEATURES
    assert grpc_wire.parse_features(by_grpc(anything=floats(FEATURES))) == FEATURES


def classes_by(protocol: str, rows: list[list[tuple[str, float]]]) -> list[list[ClassScore]]:
    if protocol == "rest":
        return rest_wire.parse_classes({"results": rows})
    response = serving_pb2.ClassificationResponse()
    for row in rows:
        entries = response.result.classifications.add().classes
        for label, score in row:
            entries.add(label=label, score=score)
    return grpc_wire.parse_classes(response)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_row_without_labels_and_scores_is_an_invalid_image(protocol: str) -> None:
    valid, blank = [("cat", 0.75), ("dog", 0.25)], [("", 0.0), ("", 0.0)]
    with pytest.raises(InvalidImageError, match=f"image 1: {UNDECODABLE}") as raised:
        classes_by(protocol, [valid, blank])
    assert raised.value.results == [[ClassScore("cat", 0.75), ClassScore("dog", 0.25)], None]
    # A model may have scores without labels.
    assert classes_by(protocol, [[("", 0.75), ("", 0.25)]])


def test_files_of_one_request_have_their_own_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []

    async def respond(self: AsyncGrpcClient, call: Any) -> Any:
        images = call.request.inputs["image_bytes"].string_val
        sent.append(len(images))
        reasons = [REASON if image == b"damaged" else "" for image in images]
        return by_grpc(label=strings(*LABELS), confidence=floats(CONFIDENCES),
                       probabilities=floats(PROBABILITIES), error=strings(*reasons))  # fmt: skip

    monkeypatch.setattr(AsyncGrpcClient, "_exchange", respond)
    for name, content in (("a", b"cat"), ("b", b"damaged"), ("c", b"dog")):
        (tmp_path / f"{name}.png").write_bytes(content)
    found = predict_files([tmp_path], "grpc://127.0.0.1:1", "m", PredictOptions(batch_size=3))
    assert [result.prediction for result in found] == EXPECTED
    assert [result.error for result in found] == ["", REASON, ""]
    assert sent == [3]  # nothing is sent again
