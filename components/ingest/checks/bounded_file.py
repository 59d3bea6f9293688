"""The bytes of an image for Pillow, which reads some parts of a file piece by piece in Python."""

from __future__ import annotations

import io

_PIECES, _BYTES_PER_PIECE = 20_000, 32


def piece_limit(size: int) -> int:
    """Return how many pieces a file of `size` bytes may have: blocks, chunks, segments, padding.

    A piece takes about a microsecond and the bytes of a small object, so that a file of single
    bytes would take longer than its pixels by orders of magnitude. Programs write pieces of 64
    bytes and more.
    """
    return _PIECES + size // _BYTES_PER_PIECE


class BoundedFile(io.BytesIO):
    """A file in memory that ends the reading of very many small pieces by `ValueError`."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._size = len(data)
        self._left = piece_limit(self._size)

    def allow(self, pieces: int) -> None:
        """Allow more pieces, such as those of compressed pixels."""
        self._left += pieces

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as `io.BytesIO` does.

        Raises:
            ValueError: it was called too often.
        """
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"too many small pieces in a file of {self._size} bytes")
        return super().read(size)
