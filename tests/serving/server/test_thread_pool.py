"""The pool of request threads: its limit includes work that callers have abandoned."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from serving.server.protocol.status import Code, ServingError
from serving.server.thread_pool import Workers


async def error_code(workers: Workers, work: Callable[[], int], deadline_s: float | None) -> Code:
    with pytest.raises(ServingError) as caught:
        await workers.run(work, deadline_s)
    return caught.value.code


def test_abandoned_work_is_dropped_but_counts_until_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs: list[int] = []
    release, begun = threading.Event(), threading.Event()

    def block() -> int:
        begun.set()
        assert release.wait(60)
        return 0

    def note() -> int:
        runs.append(1)
        return len(runs)

    async def run() -> None:
        workers = Workers(threads=1, max_waiting=2)
        blocked = asyncio.ensure_future(workers.run(block))
        await asyncio.to_thread(begun.wait)
        assert await error_code(workers, note, 0.01) is Code.DEADLINE_EXCEEDED
        abandoned = asyncio.ensure_future(workers.run(note))
        await asyncio.sleep(0)  # a turn of the loop, so that it is submitted
        abandoned.cancel()
        with pytest.raises(asyncio.CancelledError):
            await abandoned
        assert await error_code(workers, note, None) is Code.UNAVAILABLE
        release.set()
        assert await blocked == 0
        assert await workers.run(note) == 1  # the first one that ran
        workers.close()

    asyncio.run(run())
    assert caplog.messages == []  # asyncio logs no unretrieved error


def test_errors_come_back() -> None:
    def fail() -> int:
        raise ServingError(Code.NOT_FOUND, "nothing")

    assert asyncio.run(error_code(Workers(), fail, 5)) is Code.NOT_FOUND
