"""Results of the clients' methods, the same for both protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import InvalidImageError

ERROR = "error"
UNDECODABLE = "expected an image that the model can decode, got other or damaged bytes"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image; `probabilities` are in the order of the model's classes.

    `familiar` is True for an in-distribution image and False for an out-of-distribution one; it is
    None if the model was exported without an OOD threshold. `label_set` is which classes are in the
    set of labels that contains the true one with the chosen coverage, in the order of
    `probabilities`, and `abstain` whether the confidence is too low for the chosen precision; each
    is None if the model was exported without it.

    `selected` is which labels the image has according to a model for several labels an image, in
    the order of `probabilities`: those whose probability reaches the threshold of their class, of
    which there may be none. `label` and `confidence` are then those of the most probable label. It
    is None for a model that predicts one label an image.
    """

    label: str
    confidence: float
    probabilities: tuple[float, ...]
    familiar: bool | None = None
    label_set: tuple[bool, ...] | None = None
    abstain: bool | None = None
    selected: tuple[bool, ...] | None = None

    def names_in_set(self, classes: Sequence[str]) -> list[str]:
        """Return the names of the labels in the set; the number of a class without a name."""
        return _flagged_names(self.label_set or (), classes)

    def selected_names(self, classes: Sequence[str]) -> list[str]:
        """Return the names of the selected labels; the number of a class without a name."""
        return _flagged_names(self.selected or (), classes)


def _flagged_names(flags: Sequence[bool], classes: Sequence[str]) -> list[str]:
    return [
        classes[index] if index < len(classes) else f"class {index}"
        for index, inside in enumerate(flags)
        if inside
    ]


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
    reasons: Sequence[str] | None = None,
    *,
    label_sets: Sequence[Sequence[bool]] | None = None,
    abstain: Sequence[bool] | None = None,
    selected: Sequence[Sequence[bool]] | None = None,
) -> list[Prediction]:
    """Return one prediction per image from the outputs of `serving_default`; None for absent ones.

    Raises:
        ValueError: the outputs differ in length.
        InvalidImageError: the output `error` has a reason for an image.
    """
    absent = [None] * len(labels)
    optional = [
        absent if values is None else values for values in (familiar, label_sets, abstain, selected)
    ]
    predictions = [
        Prediction(
            label, float(confidence), tuple(map(float, row)), flag,
            None if inside is None else tuple(inside), abstains,
            None if chosen is None else tuple(chosen),
        )
        for label, confidence, row, flag, inside, abstains, chosen in zip(
            labels, confidences, probabilities, *optional, strict=True
        )
    ]  # fmt: skip
    return check_images(predictions, reasons)


def check_scores(rows: list[list[ClassScore]]) -> list[list[ClassScore]]:
    """Return the results of the Classify API, which has no output for the reasons.

    Raises:
        InvalidImageError: a row has neither labels nor scores.
    """
    blank = [bool(row) and not any(one.label or one.score for one in row) for row in rows]
    return check_images(rows, [UNDECODABLE if empty else "" for empty in blank])


def check_images(results: list[Result], reasons: Sequence[str] | None) -> list[Result]:
    """Return the results of images.

    Args:
        results: one per image.
        reasons: "" for each valid image; None if the model does not report invalid images.

    Raises:
        ValueError: there is not one reason per image.
        InvalidImageError: an image is invalid.
    """
    if reasons is None or not any(reasons):
        return results
    valid = [None if reason else one for one, reason in zip(results, reasons, strict=True)]
    raise InvalidImageError({i: reason for i, reason in enumerate(reasons) if reason}, valid)
