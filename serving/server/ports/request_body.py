"""Bodies of REST requests: read, inflated and parsed within limits of memory."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from serving.server.memory import HeldBody, WorkMemory
from serving.server.protocol import json_values
from serving.server.protocol.status import Code, ServingError, invalid

_CHUNK_BYTES = 1 << 20


class TooLargeError(ServingError):
    """A body over a limit; its HTTP status is 413."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.RESOURCE_EXHAUSTED, message)


async def read_body(request: web.Request, held: HeldBody, max_bytes: int) -> bytearray:
    """Return the body as sent; its bytes are held as they arrive.

    Raises:
        ServingError: RESOURCE_EXHAUSTED above the limit, UNAVAILABLE if other requests fill the
            memory, INVALID_ARGUMENT if the body is malformed or cut off.
    """
    body = bytearray()
    too_large = TooLargeError(f"the body is larger than {max_bytes} bytes")
    if (request.content_length or 0) > max_bytes:
        raise too_large
    try:
        async for chunk in request.content.iter_any():
            if len(body) + len(chunk) > max_bytes:
                raise too_large
            held.grow(len(chunk))
            body += chunk
    except (ServingError, ConnectionError):
        raise
    except Exception as error:  # the parser's errors are of several unrelated classes
        raise invalid(f"cannot read the body: {type(error).__name__}") from None
    return body


@dataclass(frozen=True)
class RequestBody:
    """A body as it was sent, its Content-Encoding, and the limits of what it may become."""

    received: bytearray
    encoding: str
    max_bytes: int
    memory: WorkMemory

    @contextlib.contextmanager
    def document(self) -> Iterator[dict[str, Any]]:
        """Parse the body as a JSON object; its memory is held for the block.

        Raises:
            ServingError: INVALID_ARGUMENT for damaged data or JSON, RESOURCE_EXHAUSTED above a
                limit.
        """
        size = self._size()
        if size > self.memory.limit:
            raise TooLargeError(
                f"the parsed body may take {size} bytes; at most {self.memory.limit}"
            )
        with self.memory.hold(size):
            yield json_values.parse_body(self._content())

    def _size(self) -> int:
        """Return the estimated size of the parsed body; a compressed one is inflated for that."""
        if not self.encoding:
            return json_values.parsed_size(self.received)
        size, end = 0, b""
        for chunk in inflated(self.received, self.encoding, self.max_bytes):
            # An escape sequence between two chunks counts, too.
            size += len(chunk) + json_values.parsed_size(end + chunk)
            end = chunk[-1:]
        return size

    def _content(self) -> bytearray:
        if not self.encoding:
            return self.received
        content = bytearray()
        for chunk in inflated(self.received, self.encoding, self.max_bytes):
            content += chunk
        return content


def inflated(body: bytes | bytearray, encoding: str, max_bytes: int) -> Iterator[bytes]:
    """Yield a compressed body in parts, of at most `max_bytes` together.

    Raises:
        ServingError: INVALID_ARGUMENT for damaged data, RESOURCE_EXHAUSTED above the limit.
    """
    if encoding != "gzip":
        raise invalid(f"Content-Encoding {encoding!a} is not supported; expected gzip")
    inflater = zlib.decompressobj(wbits=31)
    total, waiting = 0, bytes(body)
    while not inflater.eof:
        try:
            chunk = inflater.decompress(waiting, _CHUNK_BYTES)
        except zlib.error as error:
            raise invalid(f"cannot inflate the body: {error}") from None
        waiting = inflater.unconsumed_tail
        total += len(chunk)
        if total > max_bytes:
            raise TooLargeError(f"the inflated body is larger than {max_bytes} bytes")
        if not chunk and not inflater.eof and not waiting:
            raise invalid("cannot inflate the body: it is truncated")
        yield chunk
    if inflater.unused_data:
        raise invalid("cannot inflate the body: other data follows it")
