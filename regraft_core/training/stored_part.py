"""Rows of features that stay in their file until they are used, on any machine that sees it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.stored_artifacts import content_file


@dataclass(frozen=True)
class StoredPart:
    """Rows [m, width] of one array file of features, with the part of NumPy's interface they need.

    Attributes:
        folder: the features.
        name: the file in it; perhaps in the content store that the folder refers to.
        shape: of these rows.
        columns: which columns of the file, int64 [width]; None for all.
        rows: which rows of the file, int64 [m], or a range of them.
    """

    folder: str
    name: str
    shape: tuple[int, int]
    rows: NDArray[np.int64] | slice
    columns: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @overload
    def __getitem__(self, chosen: slice) -> StoredPart: ...
    @overload
    def __getitem__(self, chosen: NDArray[np.int64]) -> NDArray[Any]: ...

    def __getitem__(self, chosen: slice | NDArray[np.int64]) -> StoredPart | NDArray[Any]:
        """Return a range of the rows, not read; or read those at some indices."""
        if isinstance(chosen, slice):
            first, end, _ = chosen.indices(len(self))
            if isinstance(self.rows, slice):
                rows: NDArray[np.int64] | slice = slice(
                    self.rows.start + first, self.rows.start + end
                )
            else:
                rows = self.rows[first:end]
            return replace(self, rows=rows, shape=(end - first, self.shape[1]))
        return self.pick(chosen)._read()

    def pick(self, indices: NDArray[np.int64]) -> StoredPart:
        """Return the rows at some indices, not read."""
        rows = indices + self.rows.start if isinstance(self.rows, slice) else self.rows[indices]
        return replace(self, rows=rows, shape=(len(indices), self.shape[1]))

    def take_columns(self, columns: NDArray[np.int64]) -> StoredPart:
        """Return some columns of a part with all of them."""
        return replace(self, columns=columns, shape=(len(self), len(columns)))

    def astype(self, dtype: Any) -> NDArray[Any]:
        """Read the rows as a new array of this type."""
        return self._read().astype(dtype)

    def _read(self) -> NDArray[Any]:
        path = content_file(self.folder, self.name)
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        found: NDArray[Any] = stored.reshape(len(stored), -1)[self.rows]
        return found if self.columns is None else found[:, self.columns]
