"""gRPC messages are received a few at a time, so that those in flight are bounded."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from serving.server.ports.reception import AT_A_TIME, Reception
from serving.server.protocol.status import Code, ServingError

MB = 1 << 20


class Arriving:
    """A call whose message arrives when it is told to."""

    def __init__(self, message: object = b"message") -> None:
        self.arrive = asyncio.Event()
        self.is_read = False
        self._message = message

    async def read(self) -> object:
        self.is_read = True
        await self.arrive.wait()
        return self._message


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_only_some_messages_are_received_at_a_time() -> None:
    async def run() -> None:
        reception = Reception(64 * MB, 256 * MB, timeout_s=60)
        assert reception.max_bytes * AT_A_TIME == 64 * MB
        calls = [Arriving() for _ in range(AT_A_TIME + 3)]
        tasks = [asyncio.ensure_future(reception.receive(call)) for call in calls]
        await turns()
        assert [call.is_read for call in calls] == [True] * AT_A_TIME + [False] * 3
        tasks[0].cancel()  # as when its client goes away
        calls[1].arrive.set()
        await turns()
        assert [call.is_read for call in calls[-3:]] == [True, True, False]
        assert await tasks[1] == b"message"
        for call in calls:
            call.arrive.set()
        assert set(await asyncio.gather(*tasks[2:])) == {b"message"}

    asyncio.run(run())


def test_a_message_that_does_not_arrive_gives_its_place_back() -> None:
    async def run() -> None:
        reception = Reception(64 * MB, MB, timeout_s=0.01)
        assert reception.max_bytes == MB
        for _ in range(2 * AT_A_TIME):
            with pytest.raises(ServingError) as late:
                await reception.receive(Arriving())
            assert late.value.code is Code.DEADLINE_EXCEEDED
        none = Arriving(grpc.aio.EOF)
        none.arrive.set()
        with pytest.raises(ServingError) as refused:
            await reception.receive(none)
        assert refused.value.code is Code.INVALID_ARGUMENT

    asyncio.run(run())
