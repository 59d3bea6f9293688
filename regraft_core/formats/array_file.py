"""Files of arrays that a manifest names with their digest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.manifest_storage import digest_file
from regraft_core.formats.stored_artifacts import content_file
from regraft_core.runtime.errors import InputError


def write_arrays(folder: str | os.PathLike[str], file_name: str, arrays: Mapping[str, Any]) -> str:
    """Write the file into `folder`; return its SHA-256."""
    path = Path(folder) / file_name
    np.savez(path, allow_pickle=False, **arrays)
    return digest_file(path)


def read_arrays(
    folder: str | os.PathLike[str], file_name: str, digest: str
) -> dict[str, NDArray[Any]]:
    """Read the file of `folder`.

    Raises:
        InputError: it is missing, or does not have the digest.
    """
    path = content_file(folder, file_name)
    if not path.is_file():
        raise InputError(f"expected {file_name} in {folder}, found none")
    received = digest_file(path)
    if received != digest:
        raise InputError(f"{path}: expected digest {digest[:12]}, got {received[:12]}")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
