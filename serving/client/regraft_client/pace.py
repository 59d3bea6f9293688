"""How many requests are in flight: few at first, then as many as the server accepts.

TF Serving runs one gRPC request per thread and refuses the others (`BusyError`); by default it has
four threads per core, which a client does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .errors import BusyError
from .retries import Retries

FIRST = 2
Result = TypeVar("Result")


class Pace:
    """Sends requests, at most `most` at a time, and repeats those that find the server busy.

    Each response allows one more request, and after the first `BusyError` a fraction of one; each
    `BusyError` halves the number.
    """

    def __init__(self, most: int, retries: Retries) -> None:
        self.limit = float(max(min(FIRST, most), 1))
        self._most = max(most, 1)
        self._retries = retries
        self._in_flight = 0
        self._was_busy = False
        self._changed = asyncio.Condition()

    async def send(self, request: Callable[[], Awaitable[Result]]) -> Result:
        """Send a request when its turn comes; repeat it after a random pause if it must wait.

        Raises:
            BusyError: the server was busy at each attempt.
        """
        for pause_s in self._retries.pauses():
            try:
                return await self._send_once(request)
            except BusyError:
                await asyncio.sleep(pause_s)
        return await self._send_once(request)

    async def _send_once(self, request: Callable[[], Awaitable[Result]]) -> Result:
        async with self._changed:
            await self._changed.wait_for(lambda: self._in_flight < int(self.limit))
            self._in_flight += 1
        try:
            response = await request()
        except BusyError:
            self._was_busy = True
            self.limit = max(1.0, self.limit / 2)
            raise
        else:
            more = 1 / self.limit if self._was_busy else 1.0
            self.limit = min(self.limit + more, float(self._most))
            return response
        finally:
            self._in_flight -= 1
            async with self._changed:
                self._changed.notify_all()
