"""Prefetching: in order, limited, with errors in place of the results."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from regraft_core.images.prefetch import prefetch_map


def test_results_have_the_order_of_the_items() -> None:
    second_done = threading.Event()

    def slow_first(item: int) -> int:
        if item == 0:
            assert second_done.wait(10)
        if item == 1:
            second_done.set()
        return item * item

    assert list(prefetch_map(slow_first, range(5), 2)) == [0, 1, 4, 9, 16]


def test_few_items_are_read_ahead() -> None:
    read = []

    def items() -> Iterator[int]:
        for item in range(100):
            read.append(item)
            yield item

    results = prefetch_map(str, items(), 2)
    assert next(results) == "0"
    assert len(read) == 3
    results.close()  # type: ignore[attr-defined]
    assert len(read) == 3


def test_an_error_is_raised_in_place_of_the_result() -> None:
    results = prefetch_map(lambda item: 1 // item, [1, 0, 1], 2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_without_items_there_are_no_results() -> None:
    assert list(prefetch_map(str, [], 2)) == []
