"""PNG files: every checksum is checked, and plain images are decoded without Pillow's reader.

Pillow's reader takes longer to open a small file than to decode it: to validate a 28 x 28 PNG takes
97 us with it, and 21 us with the batched decoding here, so ingest is about as fast as a bare loop
of Pillow (benchmarks/results/ingest.json). Pillow also skips checksums that TensorFlow's decoder
checks when a model is served.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from components.ingest.checks.bounded_file import piece_limit
from components.ingest.checks.invalid_image import InvalidImageError
from regraft_core.images.file_types import PNG_SIGNATURE, PNG_TEXT, PNG_TEXTS

_CHUNK, _CRC, _HEADER = struct.Struct(">I4s"), struct.Struct(">I"), struct.Struct(">IIBBBBB")
_SIDES = struct.Struct(">II")
_USED_CHUNKS = {b"IHDR", b"PLTE", b"tRNS"}
_CRITICAL_CHUNKS = {b"IHDR", b"PLTE", b"IDAT"}
_SIMPLE_NAMES = [b"IHDR", b"IDAT"]
_PLAIN_CHUNKS = {b"IHDR", b"IDAT", b"pHYs", b"tEXt", b"tIME", b"gAMA", b"sRGB", b"cHRM"}
_LAST_FILTER = 4
_STREAM_STEP = 1 << 20
PALETTE_COLOR = 3
_CHANNELS = {0: 1, 2: 3, PALETTE_COLOR: 1, 4: 2, 6: 4}
_DEPTHS = {
    0: (1, 2, 4, 8, 16), 2: (8, 16), PALETTE_COLOR: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16),
}  # fmt: skip
_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # fmt: skip
_MAX_CHUNK_BYTES, _MAX_STREAM_BYTES = 1 << 20, 7 << 20
"""The model's decoder refuses chunks of 8 MB, unless the pixels need as many bytes."""
_MAX_UNPACKED_BYTES = 64 << 20


class PlainPng(NamedTuple):
    """An image of 8-bit gray (L) or RGB: its decompressed rows, each after its filter number."""

    mode: str
    size: tuple[int, int]
    rows: bytes


class PngChunks(NamedTuple):
    """The chunks of a PNG whose checksums are correct.

    Attributes:
        names: of all chunks before IEND, in order.
        contents: of the first IHDR, PLTE and tRNS, by name.
        stream: the content of all IDAT chunks.
        longest: the length of the longest other chunk.
        texts: how often part of the name of a compressed text occurs.
    """

    names: list[bytes]
    contents: dict[bytes, bytes]
    stream: bytes
    longest: int
    texts: int


class PngHeader(NamedTuple):
    """The fields of IHDR."""

    width: int
    height: int
    bits: int
    color: int
    compression: int
    filters: int
    interlace: int


def png_chunks(data: bytes) -> PngChunks:
    """Return a PNG's chunks, after checking every CRC and the closing chunk.

    Raises:
        InvalidImageError: a checksum is incorrect, the file is truncated, or has very many chunks.
    """
    position, view, longest = len(PNG_SIGNATURE), memoryview(data), 0
    most = piece_limit(len(data))
    names: list[bytes] = []
    contents: dict[bytes, bytes] = {}
    parts: list[memoryview] = []
    try:
        while True:
            length, name = _CHUNK.unpack_from(data, position)
            end = position + 8 + length
            (crc,) = _CRC.unpack_from(data, end)
            if zlib.crc32(view[position + 4 : end]) != crc:
                raise InvalidImageError(
                    "damaged", f"png: incorrect checksum in chunk {name.decode('latin-1')!r}"
                )
            if name == b"IDAT":
                parts.append(view[position + 8 : end])
            elif name == b"IEND":
                texts = data.count(PNG_TEXT)
                return PngChunks(names, contents, b"".join(parts), longest, texts)
            else:
                longest = max(longest, length)
                if name in _USED_CHUNKS:
                    contents.setdefault(name, data[position + 8 : end])
            names.append(name)
            if len(names) > most:
                raise InvalidImageError("damaged", f"png: more than {most} chunks")
            position = end + 4
    except struct.error as error:
        raise InvalidImageError("damaged", "png: truncated, no closing chunk") from error


def png_header(chunks: PngChunks) -> PngHeader:
    """Return the fields of IHDR.

    Raises:
        InvalidImageError: there is not one IHDR with valid values, a chunk that a decoder must know
            is unknown, or a palette is missing.
    """
    if b"CgBI" in chunks.names:
        raise InvalidImageError(
            "unsupported-format", "PNG with Apple's CgBI chunk; revert it with pngcrush or pngdefry"
        )
    unknown = [name for name in chunks.names if not _may_be_skipped(name)]
    if unknown:
        name = unknown[0].decode("latin-1")
        raise InvalidImageError("damaged", f"png: unknown critical chunk {name!r}")
    content = chunks.contents.get(b"IHDR", b"")
    if len(content) != _HEADER.size or chunks.names.count(b"IHDR") != 1:
        raise InvalidImageError("damaged", "png: expected one IHDR chunk of 13 bytes")
    header = PngHeader._make(_HEADER.unpack(content))
    if (
        header.bits not in _DEPTHS.get(header.color, ())
        or header.compression
        or header.filters
        or header.interlace > 1
        or not header.width * header.height
    ):
        raise InvalidImageError("damaged", f"png: invalid header {', '.join(map(str, header))}")
    if header.color == PALETTE_COLOR and not _is_palette(chunks.contents.get(b"PLTE", b"")):
        raise InvalidImageError("damaged", "png: expected a palette of 1 to 256 colors")
    return header


def is_served_png(chunks: PngChunks, header: PngHeader) -> bool:
    """Return whether the model's decoder reads the order and the sizes of these chunks.

    It refuses a chunk before IHDR or between IDAT chunks, an invalid or late palette, very large
    chunks and very many texts, which Pillow reads.
    """
    names = chunks.names
    if not _is_in_order(names) or chunks.texts > PNG_TEXTS:
        return False
    if b"PLTE" in names and (
        names.count(b"PLTE") > 1
        or names.index(b"PLTE") > names.index(b"IDAT")
        or not _is_palette(chunks.contents[b"PLTE"])
    ):
        return False
    unpacked = unpacked_bytes(header)
    longest_stream = max(_MAX_STREAM_BYTES, unpacked + unpacked // 8192)
    return chunks.longest <= _MAX_CHUNK_BYTES and len(chunks.stream) <= longest_stream


def core_png(chunks: PngChunks, header: PngHeader) -> bytes:
    """Return a PNG of the header, the palette, the transparency and the pixels alone.

    Pillow limits the size of metadata. Of transparency, it accepts what decoders must ignore.
    """
    contents = [(b"IHDR", chunks.contents[b"IHDR"])]
    palette = chunks.contents.get(b"PLTE", b"")
    if header.color == PALETTE_COLOR:
        contents.append((b"PLTE", palette))
    clear = chunks.contents.get(b"tRNS", b"")
    entries = {0: (2,), 2: (6,), PALETTE_COLOR: range(1, len(palette) // 3 + 1)}
    order = [name for name in chunks.names if name in (b"PLTE", b"tRNS", b"IDAT")]
    before = order[: order.index(b"tRNS")] if clear else []
    is_late = b"IDAT" in before or (header.color == PALETTE_COLOR and b"PLTE" not in before)
    if clear and not is_late and len(clear) in entries.get(header.color, ()):
        contents.append((b"tRNS", clear))
    contents += [(b"IDAT", chunks.stream), (b"IEND", b"")]
    parts = [PNG_SIGNATURE]
    for name, content in contents:
        crc = zlib.crc32(content, zlib.crc32(name))
        parts += [_CHUNK.pack(len(content), name), content, _CRC.pack(crc)]
    return b"".join(parts)


def unpacked_bytes(header: PngHeader) -> int:
    """Return the number of bytes that the stream of an image has, with the filter of each row."""
    bits = header.bits * _CHANNELS[header.color]
    if not header.interlace:
        return header.height * (1 + (header.width * bits + 7) // 8)
    total = 0
    for x, y, step_x, step_y in _PASSES:
        columns = max(0, (header.width - x + step_x - 1) // step_x)
        rows = max(0, (header.height - y + step_y - 1) // step_y)
        total += rows * (1 + (columns * bits + 7) // 8) if columns else 0
    return total


def unpack_plain(chunks: PngChunks, *, max_pixels: int) -> PlainPng | None:
    """Decompress a plain PNG; None if it is not plain, not whole, or larger than the limits."""
    names = chunks.names
    if names != _SIMPLE_NAMES and not (
        _PLAIN_CHUNKS.issuperset(names)
        and names.count(b"IHDR") == 1
        and _is_in_order(names)
        and chunks.longest <= _MAX_CHUNK_BYTES
        and chunks.texts <= PNG_TEXTS
    ):
        return None
    if len(chunks.contents[b"IHDR"]) != _HEADER.size:
        return None
    width, height, bits, color, *others = _HEADER.unpack(chunks.contents[b"IHDR"])
    if bits != 8 or color not in (0, 2) or any(others) or not 0 < width * height <= max_pixels:
        return None
    row_bytes = 1 + width * (3 if color else 1)
    if row_bytes * height > _MAX_UNPACKED_BYTES or len(chunks.stream) > _MAX_STREAM_BYTES:
        return None
    stream = zlib.decompressobj()
    try:
        rows = stream.decompress(chunks.stream, row_bytes * height + 1)
    except zlib.error:
        return None
    if not stream.eof or len(rows) != row_bytes * height or max(rows[::row_bytes]) > _LAST_FILTER:
        return None
    return PlainPng("RGB" if color else "L", (width, height), rows)


def unpack_small(data: bytes, *, max_side_px: int, max_pixels: int) -> PlainPng | None:
    """Decompress a plain PNG with sides up to `max_side_px`; None for all other files."""
    # The header is first, so larger images are skipped before their checksums are computed.
    if not data.startswith(PNG_SIGNATURE) or len(data) < 24:
        return None
    if max(_SIDES.unpack_from(data, 16)) > max_side_px:
        return None
    try:
        png = unpack_plain(png_chunks(data), max_pixels=max_pixels)
    except InvalidImageError:
        return None
    return png if png and max(png.size) <= max_side_px else None


def unfilter(images: Sequence[PlainPng]) -> Image.Image:
    """Return images of one mode and size below each other, each followed by a black row.

    They are decoded as one tall image. Filters refer to the row above, which is black for the
    first row of an image: hence the rows between.
    """
    mode, (width, height), _ = images[0]
    gap = bytes(1 + width * len(mode))
    stored = zlib.compress(gap.join([png.rows for png in images]) + gap, level=0)
    return Image.frombytes(mode, (width, len(images) * (height + 1)), stored, "zip", mode)


def check_stream(packed: bytes, header: PngHeader) -> None:
    """Check that the compressed stream of a PNG is whole, with its closing checksum.

    Pillow's decoder stops at the last pixel, or where the stream ends; TensorFlow's refuses a
    stream without an end, or with too few bytes.

    Raises:
        ValueError, zlib.error: it is not whole, or contains much more than the pixels.
    """
    stream = zlib.decompressobj()
    expected, found = unpacked_bytes(header), 0
    while not stream.eof:
        count = len(stream.decompress(packed, _STREAM_STEP))
        packed = stream.unconsumed_tail
        found += count
        if found > expected + _STREAM_STEP:
            raise ValueError("more compressed data than pixels")
        if not count and not packed and not stream.eof:
            raise ValueError("the compressed stream has no end")
    if found < expected:
        raise ValueError(f"expected {expected} bytes of pixels, found {found}")


def _may_be_skipped(name: bytes) -> bool:
    """Return whether a chunk is a known one, or one whose name says that it is not critical."""
    return name in _CRITICAL_CHUNKS or (name.isalpha() and name[:1].islower())


def _is_palette(content: bytes) -> bool:
    return 0 < len(content) <= 768 and len(content) % 3 == 0


def _is_in_order(names: Sequence[bytes]) -> bool:
    """Return whether IHDR is first, and the IDAT chunks follow each other."""
    if names[0] != b"IHDR" or b"IDAT" not in names:
        return False
    first = names.index(b"IDAT")
    return b"IDAT" not in names[first + names.count(b"IDAT") :]
