"""Writes feature shards completely or not at all, so that an interrupted step can resume."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.manifest_storage import digest_file, write_text
from regraft_core.formats.manifests.features import FeatureShard
from regraft_core.formats.stored_artifacts import save_work
from regraft_core.runtime.errors import InputError, UnavailableError
from regraft_core.training.feature_store import array_file

FLOAT16_MAX = 65504.0
DONE = ".done"
Kinds = dict[str, tuple[str, list[int]]]
"""Dtype and row shape by array."""
Digests = dict[str, dict[str, str]]
"""SHA-256 by array, by stem of a feature shard."""


class ShardStore:
    """A folder of feature shards; `kinds` are dtype and row shape of each array.

    With `marked`, each finished shard has a marker file with its digests for later processes.
    """

    def __init__(self, folder: Path, kinds: Kinds, *, marked: bool) -> None:
        self._folder, self._kinds, self._marked = folder, kinds, marked
        self._digests: Digests = {}
        folder.mkdir(parents=True, exist_ok=True)

    def contains(self, info: FeatureShard) -> bool:
        """Return whether a shard is completely written and its arrays are intact."""
        try:
            digests = json.loads(self._mark(info).read_text(encoding="utf-8"))
            if digests != self._measure(info):
                return False
            for name, (dtype, shape) in self._kinds.items():
                path = array_file(self._folder, info.stem, name)
                array = np.load(path, mmap_mode="r", allow_pickle=False)
                if array.shape != (info.count, *shape) or array.dtype != np.dtype(dtype):
                    return False
        except (OSError, ValueError):
            return False
        self._digests[info.stem] = digests
        return True

    @property
    def folder(self) -> Path:
        """The folder."""
        return self._folder

    def add(self, digests: Digests) -> None:
        """Note the digests of shards that another process has written to the folder."""
        self._digests |= digests

    def digests(self, shards: Iterable[FeatureShard]) -> Digests:
        """Return the digests of shards that the store contains."""
        return {info.stem: self._digests[info.stem] for info in shards}

    def with_digests(self, info: FeatureShard) -> FeatureShard:
        """Return a shard that the store contains, with the digests of its arrays."""
        return info.model_copy(update={"sha256": self._digests[info.stem]})

    def write(self, info: FeatureShard, pieces: Iterable[dict[str, NDArray[Any]]]) -> None:
        """Write the arrays of one shard by memory mapping, piece by piece.

        Raises:
            InputError: a value is too large for float16.
            UnavailableError: the disk is full.
        """
        try:
            maps = {name: self._new(info, name) for name in self._kinds}
            done = 0
            for piece in pieces:
                count = len(next(iter(piece.values())))
                for name, values in piece.items():
                    _check_range(name, maps[name].dtype, values)
                    maps[name][done : done + count] = values
                done += count
            for array in maps.values():
                array.flush()
            del maps
            self._digests[info.stem] = self._measure(info)
            if self._marked:
                write_text(self._mark(info), json.dumps(self._digests[info.stem]))
                save_work(self._folder)
        except OSError as error:
            raise UnavailableError(f"cannot write features to {self._folder}: {error}") from error

    def link_into(self, folder: Path) -> None:
        """Link all arrays into `folder`, or copy them if the file system has no links."""
        for path in self._folder.glob("*.npy"):
            try:
                os.link(path, folder / path.name)
            except OSError:
                shutil.copyfile(path, folder / path.name)

    def _new(self, info: FeatureShard, name: str) -> Any:
        dtype, shape = self._kinds[name]
        path = array_file(self._folder, info.stem, name)
        path.unlink(missing_ok=True)  # it may be linked into an earlier output
        array = np.lib.format.open_memmap(path, "w+", dtype, (info.count, *shape))
        # Otherwise a full disk would kill the process at a page of the map.
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return array

    def _measure(self, info: FeatureShard) -> dict[str, str]:
        return {name: digest_file(array_file(self._folder, info.stem, name))
                for name in self._kinds}  # fmt: skip

    def _mark(self, info: FeatureShard) -> Path:
        return self._folder / f"{info.stem}{DONE}"


def _check_range(name: str, dtype: np.dtype[Any], values: NDArray[Any]) -> None:
    if dtype == np.float16 and values.size and not np.abs(values).max() < FLOAT16_MAX:
        raise InputError(
            f"the activations of {name!r} reach {float(np.abs(values).max()):.0f}, beyond float16; "
            "use --feature-dtype float32"
        )
