"""Receives gRPC messages, of which only some may arrive at a time.

A message is received completely before its size is known. So its memory is bounded by the size of
the largest message and by their number, unlike that of a REST body, which is counted as it arrives.
"""

from __future__ import annotations

import asyncio
from typing import Any

from grpc.aio import EOF  # type: ignore[attr-defined]

from serving.server.protocol.status import Code, ServingError, invalid

AT_A_TIME = 16


class Reception:
    """Receives up to `AT_A_TIME` messages at the same time; others wait.

    Args:
        memory_bytes: limit of these messages together.
        max_bytes: limit of a message, if it is smaller than its part of the memory.
        timeout_s: seconds that a message may take to arrive.
    """

    def __init__(self, memory_bytes: int, max_bytes: int, timeout_s: float) -> None:
        self.max_bytes = max(min(max_bytes, memory_bytes // AT_A_TIME), 1)
        self._timeout_s = timeout_s
        self._places = asyncio.Semaphore(AT_A_TIME)

    async def receive(self, context: Any) -> bytes:
        """Return the message of a call with one message.

        Raises:
            ServingError: DEADLINE_EXCEEDED if it does not arrive in time, INVALID_ARGUMENT if
                there is none.
        """
        try:
            async with self._places, asyncio.timeout(self._timeout_s):
                message = await context.read()
        except TimeoutError:
            raise ServingError(
                Code.DEADLINE_EXCEEDED, "the message did not arrive in time"
            ) from None
        if message is EOF:
            raise invalid("expected a message, got none")
        received: bytes = message
        return received
