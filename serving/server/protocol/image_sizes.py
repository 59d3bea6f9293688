"""The sizes that encoded images declare, read from their headers in Python, before any decoding."""

from __future__ import annotations

import struct

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MAX_MARKERS = 10_000
_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})


def declared_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a JPEG, PNG, GIF, BMP or WebP; (0, 0) for other bytes."""
    try:
        if data.startswith(b"\xff\xd8"):
            return _jpeg_size(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _pair(">II", data, 16)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return _pair("<HH", data, 6)
        if data.startswith(b"BM"):
            width, height = _pair("<ii", data, 18)
            return abs(width), abs(height)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
    except (struct.error, IndexError):  # it is cut short
        pass
    return 0, 0


def _pair(form: str, data: bytes, start: int) -> tuple[int, int]:
    first, second = struct.unpack_from(form, data, start)
    return int(first), int(second)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Read the first frame header. Bytes between segments are skipped, as decoders do."""
    start = 2
    for _ in range(_MAX_MARKERS):
        start = data.find(b"\xff", start)
        if start < 0:
            return 0, 0
        marker = data[start + 1]
        if marker in _JPEG_FRAMES:
            height, width = _pair(">HH", data, start + 5)
            return width, height
        if marker == 0xFF:
            start += 1
        elif marker in _WITHOUT_LENGTH:
            start += 2
        else:
            start += 2 + max(int.from_bytes(data[start + 2 : start + 4]), 2)
    return 0xFFFF, 0xFFFF  # no camera writes so many; the size is not known to be small


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = _pair("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF
