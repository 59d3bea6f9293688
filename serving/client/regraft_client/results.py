"""Results of the clients' methods, the same for both protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image; `probabilities` are in the order of the model's classes.

    `familiar` is True for an in-distribution image and False for an out-of-distribution one; it is
    None if the model was exported without an OOD threshold.
    """

    label: str
    confidence: float
    probabilities: tuple[float, ...]
    familiar: bool | None = None


@dataclass(frozen=True)
class ClassScore:
    """One class of a classification, in the order of the model's response."""

    label: str
    score: float


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version: START, LOADING, AVAILABLE, UNLOADING or END."""

    version: int
    state: str
    error_code: str
    error_message: str


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a signature.

    A dimension of unknown size is -1; `shape` is None if the rank is unknown.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class SignatureInfo:
    """The inputs and outputs of a signature by alias."""

    method: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


@dataclass(frozen=True)
class Metadata:
    """The served version of a model, and its signatures by name."""

    name: str
    version: int
    signatures: Mapping[str, SignatureInfo]


def join_outputs(
    labels: Sequence[str],
    confidences: Sequence[float],
    probabilities: Sequence[Any],
    familiar: Sequence[bool] | None,
) -> list[Prediction]:
    """Return one prediction per image from the outputs of `serving_default`.

    Raises:
        ValueError: the outputs differ in length.
    """
    flags: Sequence[bool | None] = [None] * len(labels) if familiar is None else familiar
    return [
        Prediction(label, float(confidence), tuple(map(float, row)), flag)
        for label, confidence, row, flag in zip(
            labels, confidences, probabilities, flags, strict=True
        )
    ]
