"""PNG files without Pillow's general reader, which takes longer to open a small one than to decode.

Chunks are walked here, as stricter decoders check every checksum when serving, so what they would
refuse must not pass. Plain images (8-bit gray or RGB) are then unpacked by Pillow's decoder of
PNG pixels: one alone, or many small ones of one size at once.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from components.ingest.checks.invalid_image import InvalidImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK, _CRC, _HEADER = struct.Struct(">I4s"), struct.Struct(">I"), struct.Struct(">IIBBBBB")
_SIDES = struct.Struct(">II")
_PLAIN_CHUNKS = {b"IHDR", b"IDAT", b"pHYs", b"tEXt", b"tIME", b"gAMA", b"sRGB", b"cHRM"}
_LAST_FILTER = 4
_STREAM_STEP = 1 << 20
_UNPACKED_BYTES = 64 << 20


class PlainPng(NamedTuple):
    """An image of 8-bit gray (L) or RGB, with its compressed stream."""

    mode: str
    size: tuple[int, int]
    packed: bytes


class SmallPng(NamedTuple):
    """A plain image with its pixels unpacked, but its rows still filtered.

    `rows` has, for each row, the number of its filter and then its bytes.
    """

    mode: str
    size: tuple[int, int]
    rows: bytes


def png_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return a PNG's chunks by name (IDAT joined), having checked every CRC and the closing chunk.

    Only IHDR and IDAT come with their content.

    Raises:
        BadImageError: a checksum is wrong, or the file ends too early.
    """
    position, view = len(SIGNATURE), memoryview(data)
    chunks: dict[bytes, bytes] = {}
    parts: list[memoryview] = []
    try:
        while True:
            length, name = _CHUNK.unpack_from(data, position)
            after = position + 8 + length
            (crc,) = _CRC.unpack_from(data, after)
            if zlib.crc32(view[position + 4 : after]) != crc:
                raise InvalidImageError(
                    "damaged", f"png: wrong checksum in chunk {name.decode('latin-1')!r}"
                )
            if name == b"IDAT":
                parts.append(view[position + 8 : after])
            elif name == b"IEND":
                chunks[b"IDAT"] = b"".join(parts)
                return chunks
            else:
                chunks[name] = b"" if name != b"IHDR" else data[position + 8 : after]
            position = after + 4
    except struct.error as error:
        raise InvalidImageError("damaged", "png: truncated, no closing chunk") from error


def plain_png(chunks: dict[bytes, bytes]) -> PlainPng | None:
    """Return a PNG of 8-bit gray or RGB with nothing special about it, else None."""
    if not _PLAIN_CHUNKS.issuperset(chunks) or len(chunks.get(b"IHDR", b"")) != _HEADER.size:
        return None
    width, height, bits, color, packing, filters, interlaced = _HEADER.unpack(chunks[b"IHDR"])
    if bits != 8 or color not in (0, 2) or packing or filters or interlaced:
        return None
    if not width or not height:
        return None
    return PlainPng("RGB" if color else "L", (width, height), chunks[b"IDAT"])


def check_stream(packed: bytes, pixels: int) -> None:
    """See that the compressed stream of a PNG is whole, with its closing checksum.

    Pillow's decoder stops at the last pixel, TensorFlow's refuses a stream without an end.

    Raises:
        ValueError, zlib.error: it is not, or holds much more than `pixels`.
    """
    stream = zlib.decompressobj()
    room = 8 * pixels + _STREAM_STEP
    while not stream.eof:
        got = len(stream.decompress(packed, _STREAM_STEP))
        packed = stream.unconsumed_tail
        room -= got
        if room < 0:
            raise ValueError("more compressed data than pixels")
        if not got and not packed and not stream.eof:
            raise ValueError("the compressed stream has no end")


def decode_plain(plain: PlainPng) -> Image.Image:
    """Decode one plain PNG of any size, and see that its stream is whole.

    Raises:
        Exception: whatever a decoder raises on damage.
    """
    width, height = plain.size
    length = (1 + width * len(plain.mode)) * height
    if length <= _UNPACKED_BYTES:
        # Unpacked once, for the check and for the pixels.
        stream = zlib.decompressobj()
        rows = stream.decompress(plain.packed, length + 1)
        if stream.eof and len(rows) == length:
            tall = unfilter([SmallPng(plain.mode, plain.size, rows)])
            return tall.crop((0, 0, width, height))
    check_stream(plain.packed, width * height)
    return Image.frombytes(plain.mode, plain.size, plain.packed, "zip", plain.mode)


def small_png(data: bytes, *, side_px: int, max_pixels: int) -> SmallPng | None:
    """Unpack a whole, plain PNG with both sides below `side_px`; None for any other file."""
    if not data.startswith(SIGNATURE) or len(data) < 24:
        return None
    width, height = _SIDES.unpack_from(data, 16)
    if width >= side_px or height >= side_px or width * height > max_pixels:
        return None
    try:
        plain = plain_png(png_chunks(data))
        # Much more than the pixels themselves would be a bomb, or is not our concern.
        if plain is None or len(plain.packed) > 8 * width * height + 1024:
            return None
        rows = zlib.decompress(plain.packed, bufsize=3 * width * height + height)
    except (InvalidImageError, zlib.error):
        return None
    length = 1 + width * len(plain.mode)
    if len(rows) != length * height or max(rows[::length]) > _LAST_FILTER:
        return None
    return SmallPng(plain.mode, plain.size, rows)


def unfilter(images: Sequence[SmallPng]) -> Image.Image:
    """Return images of one mode and size below each other, each followed by a black row.

    They are decoded as one tall image. Filters refer to the row above, which is black for an
    image's first row: hence the rows between.
    """
    mode, (width, height), _ = images[0]
    gap = bytes(1 + width * len(mode))
    stored = zlib.compress(gap.join([p.rows for p in images]) + gap, level=0)
    return Image.frombytes(mode, (width, len(images) * (height + 1)), stored, "zip", mode)
