"""Compares the versions of a request log: how often the shadow agrees, and which is better.

An image that was sent several times counts once, because its predictions are not independent.
With several labels an image, the sets of labels are compared.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from components.evaluate.metrics.statistics import Comparison, compare
from regraft_core.formats.request_log import (
    LoggedAnswer,
    LoggedRequest,
    read_labels,
    read_request_log,
)
from regraft_core.runtime.errors import InputError
from regraft_core.training.intervals import wilson_interval

MAX_DISAGREEMENTS = 5


@dataclass(frozen=True)
class Disagreement:
    """What the versions predict for the same image, and the number of such images.

    Those are classes or, with several labels an image, JSON lists of the labels.
    """

    predicted: str
    shadow: str
    images: int


@dataclass(frozen=True)
class ShadowReport:
    """The comparison of a version with the shadow on the images that both predicted.

    Attributes:
        model: The model's name.
        version: The version that answered the requests.
        shadow: The version that received copies.
        sent: Images in all requests, also those that were sent before.
        images: Images that both versions could decode.
        invalid: Images that a version could not decode.
        agreement: Fraction of `images` for which both predict the same class or set of labels.
        agreement_low: Lower bound of the 95% Wilson interval.
        agreement_high: Upper bound.
        disagreements: The most frequent ones.
        labeled: McNemar's test on the images with a label, with the shadow as the candidate and
            the version as the champion; None without labels.
    """

    model: str
    version: int
    shadow: int
    sent: int
    images: int
    invalid: int
    agreement: float
    agreement_low: float
    agreement_high: float
    disagreements: tuple[Disagreement, ...]
    labeled: Comparison | None

    def as_json(self) -> dict[str, Any]:
        """Return the report as values of JSON."""
        return asdict(self)


def compare_versions(
    folder: str | os.PathLike[str], labels: str | os.PathLike[str] | None = None
) -> list[ShadowReport]:
    """Return a report for each pair of versions in a request log.

    Args:
        folder: the folder of the log.
        labels: a CSV file with the columns `sha256` and `label`; with several labels an image, a
            label is a JSON list.

    Raises:
        InputError: the log or the labels cannot be read, no request has a shadow, or no image has
            a label.
    """
    true_labels = None if labels is None else read_labels(labels)
    pairs: dict[tuple[str, int, int], dict[str, LoggedRequest]] = {}
    sent: Counter[tuple[str, int, int]] = Counter()
    read = 0
    for request in read_request_log(folder):
        read += 1
        if request.shadow is not None:
            pair = (request.model, request.answer.version, request.shadow.version)
            sent[pair] += 1
            pairs.setdefault(pair, {}).setdefault(request.sha256, request)
    if not pairs:
        raise InputError(
            f"{folder}: expected images that a shadow predicted too, found none among {read}; "
            "serve with --shadow-label LABEL"
        )
    reports = [
        _report(pair, sent[pair], found.values(), true_labels)
        for pair, found in sorted(pairs.items())
    ]
    if true_labels is not None and not any(one.labeled and one.labeled.images for one in reports):
        raise InputError(
            f"{labels}: expected labels of images in {folder}, found none among {len(true_labels)}"
        )
    return reports


def _report(
    pair: tuple[str, int, int],
    sent: int,
    found: Iterable[LoggedRequest],
    labels: Mapping[str, str] | None,
) -> ShadowReport:
    answers = [(one.sha256, one.answer, one.shadow) for one in found if one.shadow is not None]
    valid = [
        (key, _predicted(answer), _predicted(shadow))
        for key, answer, shadow in answers
        if not answer.error and not shadow.error
    ]
    equal = sum(first == second for _, first, second in valid)
    low, high = wilson_interval(equal, len(valid))
    different = Counter((first, second) for _, first, second in valid if first != second)
    model, version, shadow_version = pair
    return ShadowReport(
        model=model,
        version=version,
        shadow=shadow_version,
        sent=sent,
        images=len(valid),
        invalid=len(answers) - len(valid),
        agreement=equal / len(valid) if valid else float("nan"),
        agreement_low=low,
        agreement_high=high,
        disagreements=tuple(
            Disagreement(*classes, images)
            for classes, images in sorted(different.items(), key=lambda one: (-one[1], one[0]))
        )[:MAX_DISAGREEMENTS],
        labeled=None if labels is None else _compare(valid, labels, f"version {version}"),
    )


def _predicted(answer: LoggedAnswer) -> str:
    return answer.predicted if answer.selected is None else _list_text(answer.selected)


def _true_label(text: str) -> str:
    """Return a label of the file; a JSON list in the form that `_predicted` has."""
    if text.strip().startswith("["):
        try:
            return _list_text([str(name) for name in json.loads(text)])
        except (ValueError, RecursionError):
            pass  # the name of a class
    return text


def _list_text(names: Sequence[str]) -> str:
    return json.dumps(sorted(set(names)), ensure_ascii=False)


def _compare(
    valid: Iterable[tuple[str, str, str]], labels: Mapping[str, str], name: str
) -> Comparison:
    known = [
        (_true_label(labels[key]), first, second) for key, first, second in valid if key in labels
    ]
    return compare(
        np.array([label == shadow for label, _, shadow in known], bool),
        np.array([label == predicted for label, predicted, _ in known], bool),
        name,
    )
