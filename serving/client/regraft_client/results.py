"""What the clients answer with, whichever protocol brought it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """The answer for one image. Probabilities are in the order of the model's classes.

    `familiar` says whether the image excites the model as its own data did; None where the model
    was exported without a threshold and does not say.
    """

    label: str
    confidence: float
    probabilities: tuple[float, ...]
    familiar: bool | None = None


@dataclass(frozen=True)
class ClassScore:
    """One class of a classification, best first as the model gives them."""

    label: str
    score: float


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version: START, LOADING, AVAILABLE, UNLOADING, END."""

    version: int
    state: str
    error_code: str
    error_message: str


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a signature; a dimension -1 is open, shape None of unknown rank."""

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
    """The version that answered and its signatures by name."""

    name: str
    version: int
    signatures: Mapping[str, SignatureInfo]


def predictions(
    labels: Sequence[str],
    confidences: Sequence[float],
    probabilities: Sequence[Any],
    familiar: Sequence[bool] | None,
) -> list[Prediction]:
    """Join the outputs of `serving_default`, all of one length, to one result an image."""
    known: Sequence[bool | None] = [None] * len(labels) if familiar is None else familiar
    return [
        Prediction(label, float(confidence), tuple(map(float, row)), says)
        for label, confidence, row, says in zip(
            labels, confidences, probabilities, known, strict=True
        )
    ]
