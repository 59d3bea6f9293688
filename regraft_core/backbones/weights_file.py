"""What a weights file declares, compared with the model before any value is read.

A file of a few kilobytes can declare gigabytes: HDF5 stores missing chunks and repeated values in
almost no space, and can refer to other files.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from regraft_core.runtime.errors import InputError

_WEIGHTS = "model.weights.h5"
# An optimizer keeps up to three values for each weight, and a file has some overhead.
_COPIES, _OVERHEAD_BYTES, _LARGEST_TYPE_BYTES = 4, 16 << 20, 8
# Kinds of NumPy's types of at most 8 bytes; a string or a record may be of any size.
_NUMBERS = "fiub"
_CHUNK_VALUES = 1 << 16


def check_declared(path: Path, shapes: Sequence[tuple[int, ...]]) -> None:
    """Compare what a weights file declares with a model's weights; no value is read.

    Args:
        path: a `.weights.h5` or `.h5` file, or a `.keras` file.
        shapes: of all weights of the model.

    Raises:
        ValueError: it declares a larger tensor, or more of them, than the model has, or values that
            are no numbers or in another file.
        OSError: it is not such a file.
    """
    import h5py

    largest = max(map(math.prod, shapes), default=0)
    # By its suffix, as Keras: a file can be HDF5 and, at its end, a ZIP archive.
    if path.suffix != ".keras":
        with h5py.File(path, "r") as file:
            _check_group(file, largest, len(shapes))
        return
    limit = _COPIES * _LARGEST_TYPE_BYTES * sum(map(math.prod, shapes)) + _OVERHEAD_BYTES
    with zipfile.ZipFile(path) as archive:
        declared = sum(entry.file_size for entry in archive.infolist())
        if declared > limit:
            raise ValueError(f"it declares {declared} bytes, more than the model has")
        with archive.open(_WEIGHTS) as opened, h5py.File(opened, "r") as file:
            _check_group(file, largest, len(shapes))


def count_values(path: Path) -> int:
    """Return how many values a `.weights.h5` file declares, all layers together.

    Raises:
        OSError: it is not such a file.
    """
    import h5py

    with h5py.File(path, "r") as file:
        return sum(math.prod(item.shape) for _, item in _items(file) if hasattr(item, "shape"))


def check_finite(model: Any, what: str) -> None:
    """Check the weights of a model that were read from a file.

    Raises:
        InputError: a weight is NaN or infinite.
    """
    import numpy as np

    for variable in model.weights:
        if not np.isfinite(variable.numpy()).all():
            raise InputError(
                f"{what}: expected finite weights, found NaN or Inf in {variable.path}"
            )


def _check_group(file: Any, largest: int, count: int) -> None:
    names = tensors = 0
    for name, item in _items(file):
        if hasattr(item, "shape"):
            tensors += 1
            if item.external or item.is_virtual:
                raise ValueError(f"the values of {name} are in another file")
            # HDF5 has no bfloat16; Keras writes its two bytes and names the type.
            is_bfloat16 = item.dtype.str == "|V2" and item.attrs.get("dtype") == "bfloat16"
            if item.shape is None or not (item.dtype.kind in _NUMBERS or is_bfloat16):
                raise ValueError(f"{name} has values of type {item.dtype}, not numbers")
            if math.prod(item.shape) > largest:
                raise ValueError(f"{name} has the shape {item.shape}, larger than every weight")
            # A whole chunk is read for one value.
            if math.prod(item.chunks or ()) > max(largest, _CHUNK_VALUES):
                raise ValueError(f"{name} has chunks of the shape {item.chunks}, larger than every "
                                 "weight")  # fmt: skip
        names += len(item.attrs.get("weight_names", ()))
    if max(names, tensors) > _COPIES * count:
        raise ValueError(f"it declares {max(names, tensors)} tensors, the model has {count}")


def _items(group: Any) -> Iterator[tuple[str, Any]]:
    """Yield all groups and datasets once; links to other files are an error."""
    import h5py

    pending, seen = [group], set()
    while pending:
        one = pending.pop()
        identity = h5py.h5o.get_info(one.id).addr
        if identity in seen:
            continue
        seen.add(identity)
        yield one.name, one
        if not isinstance(one, h5py.Group):
            continue
        for name in one:
            link = one.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise ValueError(f"{one.name}/{name} is in another file")
            if isinstance(link, h5py.HardLink):
                pending.append(one[name])
