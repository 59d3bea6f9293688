"""Sums over blocks of rows: the same bits by threads and by the workers of an executor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.parallel import executor
from regraft_core.parallel.local_processes import LocalProcesses
from regraft_core.training.linear_head import head_rows, head_selection, row_blocks
from regraft_core.training.linear_head.head_rows import HeadRows
from regraft_core.training.linear_head.head_selection import fit_again, solve_head
from regraft_core.training.linear_head.linear_classifier import Scaling, Weights
from regraft_core.training.linear_head.row_blocks import RowBlocks, Rows, TwoValues
from regraft_core.training.multilabel_head.label_selection import (
    choose_label_head,
    fit_label_head_again,
)
from regraft_core.training.stored_part import StoredPart

WIDTH, CLASSES = 12, 3
OPTIONS = HeadOptions(folds=3)


def first_and_sum(
    rows: NDArray[np.float32], targets: NDArray[np.float64], weights: NDArray[np.float64], more: int
) -> tuple[float, float]:
    return float(rows[0, 0]) + more, float((weights @ targets).sum())


def stored_rows(folder: Path, count: int = 300) -> HeadRows:
    """Return rows of overlapping classes, in float16, in files of different length."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    values = 2 * np.eye(WIDTH)[labels] + rng.normal(0, 1.5, (count, WIDTH))
    parts: list[Rows] = []
    for number, part in enumerate(np.array_split(values.astype(np.float16), [70, 160])):
        np.save(folder / f"{number}.npy", part)
        parts.append(StoredPart(str(folder), f"{number}.npy", part.shape, slice(0, len(part))))
    mean, variance = values.mean(axis=0), values.var(axis=0)
    return HeadRows(parts, labels, np.arange(count), mean.astype(np.float32),
                    variance.astype(np.float32), [WIDTH])  # fmt: skip


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are streamed in small blocks, and a head is compared on a sample of them."""
    monkeypatch.setattr(head_rows, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(row_blocks, "BLOCK_VALUES", 25 * WIDTH)
    monkeypatch.setattr(head_selection, "SELECTION_ROWS", 120)


def test_results_are_in_the_order_of_the_rows(
    streamed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "PACKAGES", (*executor.PACKAGES, "tests"))
    values = np.arange(100, dtype=np.float32).reshape(-1, 1).repeat(WIDTH, axis=1)
    targets = np.eye(CLASSES)[np.arange(100) % CLASSES]
    scaling = Scaling(np.zeros(WIDTH, np.float32), np.ones(WIDTH, np.float32))
    blocks = RowBlocks([values[:60], values[60:]], targets, np.full(100, 0.5), scaling)
    found = list(blocks.map(first_and_sum, 7))
    assert found == [(7, 12.5), (32, 12.5), (57, 5), (67, 12.5), (92, 7.5)]
    by_workers = replace(blocks, executor=LocalProcesses(2))
    assert list(by_workers.map(first_and_sum, 7)) == found


def weights_of(rows: HeadRows) -> list[Weights]:
    """Return the head of all rows, and its fit again."""
    solved = solve_head({"gap": rows}, CLASSES, (1.0, 0.5, 2.0), OPTIONS)
    again = fit_again(solved, rows, (1.0, 0.5, 2.0), OPTIONS)
    return [Weights(solved.kernel, solved.bias), again]


def label_weights_of(rows: HeadRows) -> list[Weights]:
    """Return the head of several labels of all rows, and its fit again."""
    labels = (np.arange(CLASSES) <= rows.labels[:, None]).astype(np.uint8)[:, 1:]
    several = replace(rows, labels=labels)
    solved = choose_label_head({"gap": several}, OPTIONS)
    again = fit_label_head_again(solved, several, OPTIONS)
    return [Weights(solved.kernel, solved.bias), again]


@pytest.mark.parametrize("fit", [weights_of, label_weights_of])
@pytest.mark.parametrize("width", [WIDTH, 5])
def test_a_head_has_the_same_bits(fit: Any, width: int, tmp_path: Path, streamed: None) -> None:
    """By threads and by the tasks of an executor, of all columns of the files and of some."""
    rows = stored_rows(tmp_path)
    columns = np.arange(WIDTH - width, WIDTH)
    parts = [part.take_columns(columns) for part in rows.parts if isinstance(part, StoredPart)]
    rows = replace(rows, parts=parts, mean=rows.mean[columns], variance=rows.variance[columns],
                   widths=[width])  # fmt: skip
    by_tasks = fit(replace(rows, executor=LocalProcesses(1)))
    for expected, found in zip(fit(rows), by_tasks, strict=True):
        np.testing.assert_array_equal(found.kernel, expected.kernel)
        np.testing.assert_array_equal(found.bias, expected.bias)


def test_targets_have_two_values() -> None:
    targets = np.eye(CLASSES)[[2, 0, 1, 1]] * 0.9 + 0.1 / CLASSES
    for values in (targets, np.ones((5, 1)), targets[:1]):
        np.testing.assert_array_equal(TwoValues.pack(values).unpack(), values)
    with pytest.raises(ValueError, match="expected targets of two values, got more"):
        TwoValues.pack(np.arange(3.0))
