"""Rows in a file: the same as those of the array, and not read before they are used."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from regraft_core.training.stored_part import StoredPart


def test_rows_are_those_of_the_array(tmp_path: Path) -> None:
    array = np.arange(80, dtype=np.float16).reshape(10, 2, 4)
    part = StoredPart(str(tmp_path), "a.npy", (10, 8), slice(0, 10))
    some, columns = np.array([1, 4, 5, 9]), np.array([6, 2])
    picked = part[2:].pick(np.array([0, 3, 7]))
    np.save(tmp_path / "a.npy", array)
    rows = array.reshape(10, 8)
    for found, expected in (
        (part.astype(np.float32), rows.astype(np.float32)),
        (part[some], rows[some]),
        (part[3:7][np.array([0, 2])], rows[[3, 5]]),
        (part[3:99].astype(np.float16), rows[3:]),
        (picked.astype(np.float16), rows[[2, 5, 9]]),
        (picked[1:].take_columns(columns).astype(np.float16), rows[[5, 9]][:, columns]),
        (part.pick(some)[np.array([3, 0])], rows[[9, 1]]),
    ):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    assert (len(picked), picked.shape, picked[:0].astype(int).shape) == (3, (3, 8), (0, 8))
