"""`regraft.from_arrays`: images in memory as a source, written as exact PNG files and a table."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.image_inputs import encode_array
from regraft_core.formats.manifest_storage import staged_folder
from regraft_core.runtime.errors import InputError

TABLE = "images.jsonl"


def from_arrays(
    images: Any,
    labels: Iterable[Any] | None = None,
    *,
    folder: str | os.PathLike[str],
    classes: Sequence[str] | None = None,
    groups: Iterable[Any] | None = None,
    splits: Iterable[str] | None = None,
) -> Path:
    """Write images in memory to a folder, as a source of `regraft.run` and `regraft ingest`.

    Each image becomes a PNG file with the same pixels, and one line of a table in JSON lines.

    Args:
        images: uint8 [n, height, width] or [n, height, width, channels] with 1, 3 or 4 channels, or
            several arrays of different sizes. Floating-point values must be 0 to 1; they are
            multiplied by 255 and rounded. Without `labels`, pairs of image and label, or of batches
            of both, such as a `tf.data.Dataset`.
        labels: A number or text for each image. With several labels an image, 0 or 1 for each
            class, [n, classes]; an image may have none. One-hot labels are such, too; for one label
            an image, use their `argmax`.
        folder: A folder that does not exist or is empty.
        classes: Names of the classes that numbers stand for; by default the numbers are the names.
        groups: For each image what it belongs to, such as a patient; images with equal values stay
            in one split; `None` and NaN are no group.
        splits: For each image `train`, `validation` or `test`.

    Returns:
        The table, `folder/images.jsonl`.

    Raises:
        InputError: an image or label is not as described, their numbers differ, or the folder has
            content.

    Example:
        >>> source = regraft.from_arrays(x_train, y_train, folder="arrays", classes=["cat", "dog"])
        >>> run = regraft.run(source, out="runs/arrays")
    """
    pairs = _pairs(images) if labels is None else _zipped(images, labels)
    extra = {name: list(values) for name, values in (("group", groups), ("split", splits))
             if values is not None}  # fmt: skip
    count = 0
    with staged_folder(folder) as staged:
        with open(staged / TABLE, "w", encoding="utf-8") as table:
            for image, label in pairs:
                name = f"{count:06d}.png"
                row: dict[str, Any] = {"path": name, "label": _label(label, classes, count)}
                for column, values in extra.items():
                    row[column] = _text(values[count]) if count < len(values) else ""
                (staged / name).write_bytes(_encode(image, count))
                table.write(json.dumps(row) + "\n")
                count += 1
        for column, values in extra.items():
            if len(values) != count:
                raise InputError(f"{column}s: expected {count} values, got {len(values)}")
        if not count:
            raise InputError("images: expected at least one image, got none")
    return Path(folder) / TABLE


def _zipped(images: Any, labels: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    try:
        yield from zip(images, labels, strict=True)
    except ValueError as error:
        raise InputError("expected as many labels as images, got another number") from error


def _pairs(images: Any) -> Iterator[tuple[Any, Any]]:
    """Yield pairs of image and label from pairs of them, or of batches of them."""
    if hasattr(images, "__array__"):
        raise InputError("labels: expected a label for each image, got none")
    for number, pair in enumerate(images):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"element {number}: expected a pair of image and label")
        image, label = map(np.asarray, pair)
        if image.ndim == 4:
            yield from _zipped(image, label)
        else:
            yield image, label


def _encode(image: Any, number: int) -> bytes:
    """Return a PNG of whole numbers 0 to 255, or of floating-point values 0 to 1."""
    try:
        pixels: NDArray[Any] = np.asarray(image)
    except (TypeError, ValueError) as error:  # such as rows of different lengths
        raise InputError(f"image {number}: expected an array, got {error}") from error
    if pixels.dtype.kind == "f":
        if not (pixels.size and pixels.min() >= 0 and pixels.max() <= 1):  # NaN is neither
            raise InputError(
                f"image {number}: expected floating-point values 0 to 1, or whole numbers 0 to 255"
            )
        pixels = np.round(pixels * 255).astype(np.uint8)
    try:
        return encode_array(pixels)
    except ValueError as error:
        raise InputError(f"image {number}: {error}") from error


def _label(label: Any, classes: Sequence[str] | None, number: int) -> str | list[str]:
    """Return the name of a class, or the list of those that have a 1."""
    value = np.asarray(label)
    if value.ndim:
        return _indicated(value, classes, number)
    value = value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not _text(value).strip():
        raise InputError(f"label {number}: expected a number or a text, got {value!r}")
    if isinstance(value, str) or classes is None:
        return _text(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(classes):
        raise InputError(f"label {number}: expected 0 to {len(classes) - 1}, got {value!r}")
    return classes[value]


def _text(value: Any) -> str:
    """Return a value as text; a missing one, None or NaN, is empty, and 1.0 is 1."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _indicated(values: NDArray[Any], classes: Sequence[str] | None, number: int) -> list[str]:
    if values.ndim > 1 or values.dtype.kind not in "buif" or not np.isin(values, (0, 1)).all():
        raise InputError(
            f"label {number}: expected one label, or 0 or 1 for each class, got "
            f"{values.dtype} of shape {list(values.shape)}"
        )
    names = list(map(str, range(len(values)))) if classes is None else classes
    if len(names) != len(values):
        raise InputError(f"label {number}: expected {len(names)} values, got {len(values)}")
    return [name for name, value in zip(names, values, strict=True) if value]
