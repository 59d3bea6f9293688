"""A remote file that is read once from start to end, without a copy on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

from components.ingest.sources.download_retry import (
    Deadline,
    FetchError,
    TransientError,
    with_retries,
)
from components.ingest.sources.http import HttpBlocks
from components.ingest.sources.object_store import ObjectBlocks
from components.ingest.sources.transfer_progress import limited
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.addresses import is_http, redact


@contextlib.contextmanager
def open_remote(url: str, options: IngestOptions) -> Iterator[RemoteStream]:
    """Open a file of a server or an object store.

    Args:
        url: of the file.
        options: for the timeouts, retries and the limit of bytes.

    Raises:
        FetchError: the file cannot be read; while the stream is read, too.
    """
    deadline = Deadline(options.download_deadline_s)
    file = HttpBlocks(url, options, deadline) if is_http(url) else ObjectBlocks(url, deadline)
    stream = RemoteStream(file, redact(url), options, deadline)
    try:
        yield stream
    finally:
        stream.close()


class RemoteStream:
    """The bytes of a remote file; after a broken connection they go on where they stopped."""

    def __init__(
        self, file: HttpBlocks | ObjectBlocks, name: str, options: IngestOptions,
        deadline: Deadline,
    ) -> None:  # fmt: skip
        self._file, self._name = file, name
        self._options, self._deadline = options, deadline
        self._check = limited(lambda *_: None, options.max_download_bytes)
        self._blocks: Generator[bytes, None, None] | None = None
        self._received = 0
        self._rest = memoryview(b"")

    @property
    def size(self) -> int | None:
        """Size of the file in bytes, after the first read; None if the server reports none."""
        return self._file.size

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end; they are read again."""
        start = self.read(size)
        self._rest = memoryview(start + self._rest)
        return start

    def read(self, size: int) -> bytes:
        """Return and pass the next `size` bytes, fewer at the end.

        Raises:
            FetchError: the file cannot be read.
        """
        parts = []
        while size:
            block = self._rest or memoryview(self._receive())
            if not block:
                break
            parts.append(block[:size])
            self._rest = block[size:]
            size -= len(parts[-1])
        return b"".join(parts)

    def close(self) -> None:
        """Close the connection."""
        if self._blocks is not None:
            self._blocks.close()
            self._blocks = None
        self._file.close()

    def _receive(self) -> bytes:
        """Return the next block, by another request if the connection breaks; empty at the end."""
        try:
            if self._blocks is not None:
                with contextlib.suppress(TransientError):
                    return self._next_block()
            return with_retries(self._next_block, self._options, self._deadline)
        except FetchError as error:
            raise type(error)(f"{self._name}: {error}") from error

    def _next_block(self) -> bytes:
        if self._blocks is None:
            self._blocks = self._file.read_from(self._received)
        try:
            block = next(self._blocks, b"")
        except TransientError:
            self._blocks = None
            raise
        self._received += len(block)
        self._check(self._received, self.size)
        return block
