"""BMP files: whether the model's decoding reads one as it is."""

from __future__ import annotations

import struct

_HEADER = struct.Struct("<IIiiHHI")
_FILE_HEADER_BYTES, _PALETTE_BYTES = 14, 1024
_HEADER_BYTES = (40, 108, 124)


def is_served_bmp(data: bytes) -> bool:
    """Return whether the model's decoding reads a BMP: uncompressed, and without gap or tail.

    It has 24 or 32 bits per pixel, or 8 with a palette of 256 colors. Its pixels follow its header
    or palette and end the file, up to 3 bytes of padding.
    """
    offset, header_bytes, width, height, planes, bits, compression = _HEADER.unpack_from(data, 10)
    if header_bytes not in _HEADER_BYTES or planes != 1 or compression:
        return False
    if width <= 0 or not height or bits not in (8, 24, 32):
        return False
    if bits == 32 and header_bytes != _HEADER_BYTES[0]:
        return False
    palette = _PALETTE_BYTES if bits == 8 else 0
    pixels = (width * bits // 8 + 3) // 4 * 4 * abs(height)
    start = _FILE_HEADER_BYTES + header_bytes + palette
    return offset == start and len(data) == offset + pixels
