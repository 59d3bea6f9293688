"""The images to check: those of a request log, or of a folder, with what a model computed for them.

Every value of a log is data: it is compared and counted, and shown escaped, but decides nothing.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regraft_client.predict_files import find_images
from regraft_core.drift.check import Observed
from regraft_core.formats.drift_reference import to_half
from regraft_core.formats.request_log import LoggedRequest, read_request_log
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.printable import one_line

BATCH = 32
FEATURES = "features"
_SHOWN_MODELS, _NAME_LENGTH = 3, 60
_MAX_SCORE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Checked:
    """The images that are checked, and those that are not.

    Attributes:
        observed: what the model computed.
        excluded: number of images by the reason why they do not count.
        first: time of the oldest image of a log, as the log has it; empty for a folder.
        last: time of the newest image.
        lost_lines: files of the log that end within a line.
    """

    observed: Observed
    excluded: dict[str, int] = field(default_factory=dict)
    first: str = ""
    last: str = ""
    lost_lines: int = 0


@dataclass(frozen=True)
class ServedModel:
    """The model that the images of a log must be of.

    Attributes:
        classes: its classes.
        width: number of its features.
        name: its name; None accepts any if the log is of one model.
        version: its version; None accepts any if the log is of one.
    """

    classes: Sequence[str]
    width: int
    name: str | None = None
    version: int | None = None


def read_logged_images(log: str | os.PathLike[str], model: ServedModel, max_images: int) -> Checked:
    """Return the newest different images of a request log that a model predicted.

    An image that was sent several times counts once, because tests need independent images.

    Args:
        log: the folder of the log.
        model: the model that must have predicted them.
        max_images: number of images at most.

    Raises:
        InputError: the log cannot be read, has no image of the model, or values that the model
            cannot have written.
    """
    excluded: Counter[str] = Counter()
    others: Counter[tuple[str, int]] = Counter()
    lost: list[Path] = []
    newest: OrderedDict[str, LoggedRequest] = OrderedDict()
    index = {name: number for number, name in enumerate(model.classes)}
    found: set[tuple[str, int]] = set()
    for request in read_request_log(log, lost.append):
        key = request.model, request.answer.version
        if model.name not in (None, key[0]) or model.version not in (None, key[1]):
            others[key] += 1
            continue
        found.add(key)
        if reason := _unusable(request, model, index, log):
            excluded[reason] += 1
            continue
        if newest.pop(request.sha256, None) is not None:
            excluded["repeated"] += 1
        newest[request.sha256] = replace(request, image=None)  # which may be large
        if len(newest) > max_images:
            newest.popitem(last=False)
            excluded["older"] += 1
    if not found:
        version = "" if model.version is None else f" version {model.version}"
        raise InputError(
            f"{log}: expected requests of {model.name or 'a model'}{version}, found "
            f"{_describe(others)}"
        )
    if len(found) > 1:
        listed = _describe(Counter(dict.fromkeys(found, 0)))
        raise InputError(f"{log}: expected requests of one model, found {listed}; check a "
                         "published version, <destination>/<name>/<version>")  # fmt: skip
    if others:
        excluded["of other models or versions"] = others.total()
    requests = list(newest.values())
    scores = [_familiarity(request) for request in requests]
    observed = Observed(
        features=np.array([_features(request) for request in requests]).reshape(-1, model.width),
        predicted=np.array([index[request.answer.predicted] for request in requests], np.int32),
        familiarity=np.array(scores, np.float32),
    )
    times = sorted(_short(request.time) for request in requests)
    first, last = (times[0], times[-1]) if times else ("", "")
    return Checked(observed, dict(excluded), first, last, len(lost))


def read_image_folder(
    folder: str | os.PathLike[str], model: Path, classes: Sequence[str], max_images: int
) -> Checked:
    """Return what a model computes for the images of a folder; of many, evenly spaced ones.

    Copies of an image count once, because tests need independent images.

    Args:
        folder: images at any depth, or one image.
        model: the folder of the exported model.
        classes: its classes.
        max_images: number of images at most.

    Raises:
        InputError: there is no image, or the model cannot be loaded.
    """
    files = find_images([folder])
    step = max(1.0, len(files) / max_images)
    chosen = [files[int(k * step)] for k in range(min(len(files), max_images))]
    from regraft.predictors import load_signature

    outputs = load_signature(model, FEATURES)
    index = {name: number for number, name in enumerate(classes)}
    excluded = Counter({"more than --max-images": len(files) - len(chosen)})
    rows: list[tuple[NDArray[np.float16], int, float]] = []
    for encoded in different_images(chosen, excluded):
        found = outputs(encoded)
        scores = found.get("familiarity", np.full(len(encoded), np.nan))
        for row, error in enumerate(found["error"]):
            if error:
                excluded["unreadable"] += 1
                continue
            label = index[found["label"][row].decode()]
            rows.append((to_half(found[FEATURES][row]), label, float(scores[row])))
    if not rows:
        raise InputError(f"{folder}: expected images, found none that the model can decode")
    features, predicted, familiarity = zip(*rows, strict=True)
    observed = Observed(
        np.stack(features), np.array(predicted, np.int32), np.array(familiarity, np.float32)
    )
    return Checked(observed, {name: count for name, count in excluded.items() if count})


def different_images(files: Sequence[Path], excluded: Counter[str]) -> Iterator[list[bytes]]:
    """Yield the encoded images of files in batches; a copy of an earlier one does not count.

    Args:
        files: of images.
        excluded: number of images by the reason why they do not count, which is added to.
    """
    from regraft.image_inputs import encode_image

    known: set[bytes] = set()
    batch: list[bytes] = []
    for file in files:
        try:
            encoded = encode_image(file)
        except ValueError:
            excluded["unreadable"] += 1
            continue
        digest = hashlib.sha256(encoded).digest()
        if digest in known:
            excluded["repeated"] += 1
            continue
        known.add(digest)
        batch.append(encoded)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _unusable(
    request: LoggedRequest, model: ServedModel, index: dict[str, int], log: object
) -> str:
    """Return why an image does not count; empty if it does.

    Raises:
        InputError: the model cannot have written it.
    """
    answer = request.answer
    if answer.error:
        return "invalid"
    if answer.predicted not in index:
        raise InputError(f"{log}: expected classes of the model, found {_short(answer.predicted)!r}"
                         "; the log is of another model of this name and version")  # fmt: skip
    if request.features is None:
        return "without features"
    if len(request.features) != 2 * model.width:
        raise InputError(f"{log}: expected {model.width} features per image, found "
                         f"{len(request.features) // 2}; the log is of another model of this name "
                         "and version")  # fmt: skip
    return "" if np.isfinite(_features(request)).all() else "with features that are not finite"


def _features(request: LoggedRequest) -> NDArray[np.float16]:
    return np.frombuffer(request.features or b"", "<f2")


def _familiarity(request: LoggedRequest) -> float:
    """Return the score of an image; NaN if it is not known, or no number that float32 has."""
    score = request.answer.familiarity
    return math.nan if score is None or abs(score) > _MAX_SCORE else float(score)


def _describe(others: Counter[tuple[str, int]]) -> str:
    listed = [f"{_short(name)} version {version}" for (name, version), _ in others.most_common()]
    more = f" and {len(listed) - _SHOWN_MODELS} more" if len(listed) > _SHOWN_MODELS else ""
    return (", ".join(listed[:_SHOWN_MODELS]) + more) or "none"


def _short(name: str) -> str:
    return one_line(name)[:_NAME_LENGTH]
