"""The request log of a server: its lines, the reader of its files, and the labels that come later.

A log is a folder of files `requests-*.jsonl.gz` with one JSON object per predicted image. A file
that its server could not finish is read up to its last complete line.
"""

from __future__ import annotations

import base64
import binascii
import csv
import json
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft_core.runtime.errors import InputError

SCHEMA_VERSION = 1
LOG_FILE = re.compile(r"requests-[0-9]{8}T[0-9]{12}Z\.jsonl\.gz")
LABEL_COLUMNS = ("sha256", "label")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 20
# Far more than the image of a request in base64; a damaged file may have no line break at all.
_MAX_LINE_BYTES = 1 << 28
_GZIP = 31  # the format, as zlib's wbits
_OPTIONAL = ("familiarity", "features", "image", "selected", "shape", "shadow")
_CHANNELS = 3


@dataclass(frozen=True)
class LoggedAnswer:
    """What a version predicted for an image.

    `predicted` is the class; if `error` is not empty, the image is invalid and has no class.
    `familiarity` is None if the model has no OOD threshold. `selected` are the labels of the image
    according to a model for several labels an image, otherwise None.
    """

    version: int
    predicted: str
    confidence: float | None
    familiarity: float | None
    error: str
    selected: tuple[str, ...] | None = None


@dataclass(frozen=True)
class LoggedRequest:
    """One image of a request.

    Attributes:
        time: UTC, ISO 8601.
        model: The model's name.
        signature: The signature that the request was for.
        sha256: Of `image`.
        answer: What the version that the request was for predicted.
        features: The pooled features as float16, little-endian; None if the model has none.
        image: The bytes of the encoded image, or its pixels as float32, little-endian, row after
            row; None if they are not logged.
        shape: Height, width and channels if the request had pixels; None for an encoded image.
        shadow: What the shadow version predicted, if it received a copy.
    """

    time: str
    model: str
    signature: str
    sha256: str
    answer: LoggedAnswer
    features: bytes | None = None
    image: bytes | None = None
    shape: tuple[int, ...] | None = None
    shadow: LoggedAnswer | None = None

    def feature_values(self) -> tuple[float, ...]:
        """Return the features as numbers, none if there are none."""
        data = self.features or b""
        return struct.unpack(f"<{len(data) // 2}e", data)


def log_line(request: LoggedRequest) -> bytes:
    """Return the line of an image; `parse_line` reads it."""
    values: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "time": request.time,
        "model": request.model,
        "signature": request.signature,
        "sha256": request.sha256,
        **_answer_values(request.answer),
        "features": _base64(request.features),
    }
    if request.image is not None:
        values["image"] = _base64(request.image)
    if request.shape is not None:
        values["shape"] = request.shape
    if request.shadow is not None:
        values["shadow"] = _answer_values(request.shadow)
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def _answer_values(answer: LoggedAnswer) -> dict[str, Any]:
    values = dict(vars(answer))
    if answer.selected is None:
        del values["selected"]
    return values


def parse_line(line: bytes | str) -> LoggedRequest:
    """Return the image of a line.

    Raises:
        InputError: it is not JSON, has another schema version, or other keys or types.
    """
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError("expected a JSON object, got other text") from None
    if not isinstance(values, dict):
        raise InputError("expected a JSON object, got another JSON value")
    version = values.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise InputError(f"expected schema_version {SCHEMA_VERSION}, got {version!r}")
    _check_keys(values, {**_TYPES, **_ANSWER})
    shape = _shape(values)
    shadow, features = values.get("shadow"), _bytes(values, "features")
    if shadow is not None:
        _check_keys(shadow, _ANSWER)
    if features is not None and len(features) % 2:
        raise InputError(f"features: expected float16 values, got {len(features)} bytes")
    return LoggedRequest(
        time=values["time"],
        model=values["model"],
        signature=values["signature"],
        sha256=values["sha256"],
        answer=_answer(values),
        features=features,
        image=_bytes(values, "image"),
        shape=shape,
        shadow=None if shadow is None else _answer(shadow),
    )


def log_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the files of a request log, oldest first; none if `folder` is not one."""
    try:
        return sorted(p for p in Path(folder).iterdir() if LOG_FILE.fullmatch(p.name))
    except OSError:
        return []


def read_request_log(
    folder: str | os.PathLike[str], on_lost_line: Callable[[Path], None] = lambda file: None
) -> Iterator[LoggedRequest]:
    """Yield the images of a request log, oldest first.

    Args:
        folder: the folder of the log.
        on_lost_line: called with each file that ends within a line, which is lost.

    Raises:
        InputError: there are no files, one cannot be read, or a line is not one of this format.
    """
    files = log_files(folder)
    if not files:
        raise InputError(f"{folder}: expected requests-*.jsonl.gz of a request log, found none")
    for file in files:
        for number, line in enumerate(_lines(file, on_lost_line), 1):
            try:
                yield parse_line(line)
            except InputError as error:
                raise InputError(f"{file}, line {number}: {error}") from None


def read_labels(file: str | os.PathLike[str]) -> dict[str, str]:
    """Return the labels of a CSV file with the columns `sha256` and `label`, by SHA-256.

    Raises:
        InputError: it cannot be read, has other columns, a value that is not a SHA-256, or two
            labels for one image.
    """
    labels: dict[str, str] = {}
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            rows = csv.reader(opened, strict=True)
            header = next(rows, [])
            if sorted(header) != sorted(LABEL_COLUMNS):
                columns = ", ".join(header) or "none"
                raise InputError(f"{file}: expected the columns sha256 and label, got {columns}")
            for row in rows:
                if row:
                    _add_label(labels, header, row, f"{file}, line {rows.line_num}")
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{file}: expected CSV in UTF-8: {error}") from error
    return labels


def _add_label(
    labels: dict[str, str], header: Sequence[str], row: Sequence[str], where: str
) -> None:
    if len(row) != len(header):
        raise InputError(f"{where}: expected {len(header)} values, got {len(row)}")
    values = dict(zip(header, row, strict=True))
    key, label = values["sha256"].strip().lower(), values["label"]
    if not _SHA256.fullmatch(key):
        raise InputError(f"{where}: expected a SHA-256 of 64 hexadecimal digits, got {key[:80]!r}")
    if labels.setdefault(key, label) != label:
        raise InputError(
            f"{where}: expected one label for {key}, got {labels[key]!r} and {label!r}"
        )


def _lines(file: Path, on_lost_line: Callable[[Path], None]) -> Iterator[bytes]:
    """Yield the complete lines of a gzip file, also of one that ends early."""
    rest = b""
    try:
        for chunk in _inflated(file):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
            if len(rest) > _MAX_LINE_BYTES:
                raise InputError(f"{file}: expected lines of at most {_MAX_LINE_BYTES} bytes, got "
                                 "a longer one")  # fmt: skip
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error
    except zlib.error as error:
        raise InputError(f"{file}: expected gzip, found damaged data: {error}") from None
    if rest:
        on_lost_line(file)


def _inflated(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        inflater = zlib.decompressobj(_GZIP)
        while data := opened.read(_CHUNK_BYTES):
            while data:
                yield inflater.decompress(data, _CHUNK_BYTES)
                data = inflater.unconsumed_tail
                if inflater.eof:  # another file may follow, as after `cat`
                    data, inflater = inflater.unused_data, zlib.decompressobj(_GZIP)


_NUMBER, _TEXT = (int, float), (str,)
_ANSWER: Mapping[str, tuple[type, ...]] = {
    "version": (int,),
    "predicted": _TEXT,
    "confidence": (*_NUMBER, type(None)),
    "familiarity": (*_NUMBER, type(None)),
    "error": _TEXT,
    "selected": (list,),
}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "time": _TEXT,
    "model": _TEXT,
    "signature": _TEXT,
    "sha256": _TEXT,
    "features": (str, type(None)),
    "image": (str, type(None)),
    "shape": (list, type(None)),
    "shadow": (dict, type(None)),
}


def _check_keys(values: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> None:
    if foreign := sorted(set(values) - set(types)):
        raise InputError(f"expected the keys {', '.join(types)}, got also {', '.join(foreign)}")
    if missing := [name for name in types if name not in values and name not in _OPTIONAL]:
        raise InputError(f"expected the keys {', '.join(types)}, found no {', '.join(missing)}")
    for name, value in values.items():
        if not isinstance(value, types[name]) or isinstance(value, bool):
            expected = " or ".join(one.__name__ for one in types[name])
            raise InputError(f"{name}: expected {expected}, got {type(value).__name__}")


def _answer(values: Mapping[str, Any]) -> LoggedAnswer:
    selected = values.get("selected")
    if selected is not None and not all(isinstance(name, str) for name in selected):
        raise InputError(f"selected: expected names of labels, got {selected!r:.80}")
    return LoggedAnswer(
        values["version"],
        values["predicted"],
        values["confidence"],
        values.get("familiarity"),
        values["error"],
        None if selected is None else tuple(selected),
    )


def _shape(values: Mapping[str, Any]) -> tuple[int, ...] | None:
    shape = values.get("shape")
    if shape is None:
        return None
    if len(shape) != 3 or any(type(size) is not int for size in shape) or shape[2] != _CHANNELS:
        raise InputError(f"shape: expected height, width and {_CHANNELS}, got {shape}")
    return tuple(shape)


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")


def _bytes(values: Mapping[str, Any], name: str) -> bytes | None:
    text = values.get(name)
    if text is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"{name}: expected base64, got {text[:40]!r}") from None
