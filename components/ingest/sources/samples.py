"""Built-in samples: images that need no download."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from regraft_core.runtime.errors import InputError
from regraft_core.sources.kinds import SAMPLE_NAMES

DIGIT_PX = 64
DIGIT_CLASSES = tuple("0123456789")
FASHION_FOLDERS = ("/usr/share/datasets/fashion-mnist", "/usr/share/dataset-fashion-mnist")
FASHION_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip
_MAX_IDX_BYTES = 1 << 30
_FASHION_FILES = {"train": "train", "test": "t10k"}


def write_digits(folder: Path) -> None:
    """Write scikit-learn's 1,797 handwritten digits as gray PNG files in class folders.

    The 8 x 8 images of 17 gray levels are enlarged to 64 x 64 (bicubic), so that they are visible
    in the data card; nothing else is changed.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    for name in map(str, digits.target_names):
        (folder / name).mkdir(parents=True)
    levels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    for number, (pixels, label) in enumerate(zip(levels, digits.target, strict=True)):
        image = Image.fromarray(pixels).resize((DIGIT_PX, DIGIT_PX), Image.Resampling.BICUBIC)
        image.save(folder / str(label) / f"{number:04d}.png")


def is_fashion_folder(folder: Path) -> bool:
    """Return whether `folder` has the idx files of Fashion-MNIST."""
    return all(_idx_file(folder, f"{stem}-images-idx3-ubyte") for stem in _FASHION_FILES.values())


def write_fashion(folder: Path, source: Path | None = None, limit: int | None = None) -> None:
    """Write Fashion-MNIST as gray 28 x 28 PNG files in `train/<class>` and `test/<class>`.

    Args:
        folder: an empty folder to write to.
        source: the folder of the four idx files, plain or gzipped; by default that of Debian's
            package `dataset-fashion-mnist`.
        limit: maximum number of images of each split.

    Raises:
        InputError: the files are missing or damaged.
    """
    if source is None:
        source = next(
            (path for path in map(Path, FASHION_FOLDERS) if is_fashion_folder(path)), None
        )
    if source is None:
        raise InputError(
            "sample:fashion-mnist needs the Debian package dataset-fashion-mnist "
            "(apt-get install dataset-fashion-mnist), or a folder with its idx files as the source"
        )
    for split, stem in _FASHION_FILES.items():
        images = _read_idx(source, f"{stem}-images-idx3-ubyte", dimensions=3)[:limit]
        labels = _read_idx(source, f"{stem}-labels-idx1-ubyte", dimensions=1)[:limit]
        if len(images) != len(labels) or (len(labels) and labels.max() >= len(FASHION_CLASSES)):
            raise InputError(f"{source}: {len(images)} images do not match {len(labels)} labels")
        for name in FASHION_CLASSES:
            (folder / split / name).mkdir(parents=True)
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / split / FASHION_CLASSES[label] / f"{number:05d}.png"
            Image.fromarray(pixels).save(path)


_WRITERS: tuple[Callable[[Path], None], ...] = (write_digits, write_fashion)
SAMPLES = dict(zip(SAMPLE_NAMES, _WRITERS, strict=True))


def _idx_file(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def _read_idx(folder: Path, name: str, dimensions: int) -> np.ndarray:
    """Read an idx file of bytes: magic number, big-endian sizes, then the values."""
    path = _idx_file(folder, name)
    if path is None:
        raise InputError(f"expected {name} or {name}.gz in {folder}, found neither")
    opener: Any = gzip.open if path.suffix == ".gz" else open
    length = 4 + 4 * dimensions
    try:
        with opener(path, "rb") as file:
            header = file.read(length)
            if len(header) < length or header[:4] != bytes((0, 0, 8, dimensions)):
                raise InputError(
                    f"{path}: expected an idx file of bytes in {dimensions} dimensions"
                )
            shape = struct.unpack(f">{dimensions}I", header[4:])
            count = math.prod(shape)
            if not 0 < count <= _MAX_IDX_BYTES:
                raise InputError(f"{path}: expected 1 to {_MAX_IDX_BYTES} values, found {shape}")
            data = file.read(count + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if len(data) != count:
        found = "more" if len(data) > count else len(data)
        raise InputError(f"{path}: expected {shape} values, found {found}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
