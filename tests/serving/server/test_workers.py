"""The pool of request threads: bounded, also by callers who leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from serving.server.protocol.status import Code, ServingError
from serving.server.workers import Workers


async def refused(workers: Workers, work: Callable[[], int], deadline_s: float | None) -> Code:
    with pytest.raises(ServingError) as caught:
        await workers.run(work, deadline_s)
    return caught.value.code


def test_work_of_callers_who_left_is_dropped_but_counts_until_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ran: list[int] = []
    release, begun = threading.Event(), threading.Event()

    def block() -> int:
        begun.set()
        assert release.wait(60)
        return 0

    def note() -> int:
        ran.append(1)
        return len(ran)

    async def scene() -> None:
        workers = Workers(threads=1, max_waiting=2)
        blocked = asyncio.ensure_future(workers.run(block))
        await asyncio.to_thread(begun.wait)
        assert await refused(workers, note, 0.01) is Code.DEADLINE_EXCEEDED
        gone = asyncio.ensure_future(workers.run(note))
        await asyncio.sleep(0)  # a turn of the loop, so that it is submitted
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert await refused(workers, note, None) is Code.UNAVAILABLE
        release.set()
        assert await blocked == 0
        assert await workers.run(note) == 1  # the first of all to run
        workers.close()

    asyncio.run(scene())
    assert caplog.messages == []  # asyncio has no error to complain about


def test_errors_come_back() -> None:
    def fail() -> int:
        raise ServingError(Code.NOT_FOUND, "nothing")

    assert asyncio.run(refused(Workers(), fail, 5)) is Code.NOT_FOUND
