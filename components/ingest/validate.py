"""One picture: is it one, what is it, and in which bytes is it stored.

Each picture is decoded once. Its bytes are kept as they are wherever the model's own decoding
(components/core/preprocess.py) reads that form, so that training sees what serving will; what it
cannot read is written anew as PNG, which loses nothing. What either changes is counted in
`conversions`. The look of a picture (a small grey version) serves to find near duplicates and
near-empty pictures.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageOps, JpegImagePlugin, PngImagePlugin
from PIL.Image import Resampling

from components.core.errors import DataError

try:
    from PIL import WebPImagePlugin
except ImportError:  # pragma: no cover - a Pillow built without WebP
    WebPImagePlugin = None  # type: ignore[assignment]

PICTURE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff",
    ".heic", ".heif", ".avif", ".ppm", ".pgm", ".ico", ".jp2", ".svg", ".psd", ".raw", ".tga",
)  # fmt: skip
LOOK_PX = 32
MIN_LOOK_SIDE_PX = 40
"""Below this side, a perceptual hash of unlike pictures collides; only equal pixels count."""
FLAT_LEVELS = 4.0
"""Below this standard deviation (0 .. 255), a picture has no structure that a hash could tell."""
DARK_LEVELS = 8.0
EXIF_ORIENTATION = 0x0112
_CHUNK, _CRC, _HEADER = struct.Struct(">I4s"), struct.Struct(">I"), struct.Struct(">IIBBBBB")
_PLAIN_CHUNKS = {b"IHDR", b"IDAT", b"pHYs", b"tEXt", b"tIME", b"gAMA", b"sRGB", b"cHRM"}


class BadPictureError(DataError):
    """A file that cannot be used: `reason` is a fixed word, `detail` says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a good picture.

    Attributes:
        encoded: the bytes to store, or None to store the source's own.
        form: of the source: jpeg, png, gif, bmp or webp.
        width, height: as people see it, after EXIF orientation.
        conversions: what the stored bytes or the model's decoding change.
        notes: `dark` and `flat`, worth a warning.
        hash64: the perceptual hash, or a hash of the pixels where `thumb` is empty.
        thumb: uint8 [32, 32] grey as bytes, or empty for pictures too small or flat to compare.
    """

    encoded: bytes | None
    form: str
    width: int
    height: int
    hash64: int
    thumb: bytes
    conversions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def sniff(data: bytes) -> str:
    """Name the form of a picture by its first bytes; an empty string if it is none of ours."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM" and len(data) >= 54:
        return "bmp"
    return ""


def examine(data: bytes, *, max_pixels: int, look: bool = True) -> Look:
    """Decode a picture once and say what is needed to store, split and compare it.

    Args:
        data: the bytes of the file.
        max_pixels: a picture that claims more is not decoded.
        look: whether near duplicates will be looked for.

    Raises:
        BadPictureError: the file is empty, no picture, of another form, too large or damaged.
    """
    if not data:
        raise BadPictureError("empty-file", "0 bytes")
    form = sniff(data)
    if not form:
        raise BadPictureError(*_describe_other(data))
    chunks = _png_chunks(data) if form == "png" else {}
    simple = _simple_png(data, chunks) if chunks else None
    width, height = simple or (0, 0)
    if not simple:
        picture = _open(data, form)
        width, height = picture.size
    if width * height > max_pixels:
        raise BadPictureError("too-many-pixels", f"{width} x {height}, more than {max_pixels}")
    if simple:
        return _look_at(_decode_simple_png(data, chunks, simple), None, form, (), look)
    encoded, shown, conversions = _decode(picture, data, form)
    return _look_at(shown, encoded, form, conversions, look)


def _open(data: bytes, form: str) -> Image.Image:
    """Read the header with the one decoder that the first bytes name."""
    try:
        if form == "jpeg":
            return JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        if form == "png":
            return PngImagePlugin.PngImageFile(io.BytesIO(data))
        if form == "gif":
            return GifImagePlugin.GifImageFile(io.BytesIO(data))
        if form == "bmp":
            return BmpImagePlugin.BmpImageFile(io.BytesIO(data))
        if WebPImagePlugin is None:
            raise BadPictureError("unsupported-format", "WebP; this Pillow was built without it")
        return WebPImagePlugin.WebPImageFile(io.BytesIO(data))
    except BadPictureError:
        raise
    except Exception as error:
        # A decoder may raise anything on hostile bytes; each means that this file is damaged.
        raise BadPictureError("damaged", f"{form} header: {_line(error)}") from error


def _decode(
    picture: Image.Image, data: bytes, form: str
) -> tuple[bytes | None, Image.Image, tuple[str, ...]]:
    """Decode all pixels; return the new bytes (None to keep the old), the picture, conversions."""
    try:
        conversions = []
        mode = picture.mode
        rewrite = False
        if getattr(picture, "is_animated", False):
            conversions.append("animated")
            # The model's decoding unpacks every frame of a WebP before it takes the first.
            rewrite = form == "webp"
        picture.load()
        shown: Image.Image = picture
        if mode == "CMYK":
            conversions.append("cmyk")
        if form == "png" and data[24] == 16:
            conversions.append("16-bit")
            shown = _high_bytes(picture) if mode.startswith("I") else picture
        if mode in ("P", "PA"):
            conversions.append("palette")
        if mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
            conversions.append("alpha")
        if form == "bmp" and not _served_bmp(data):
            conversions.append("bmp-variant")
            rewrite = True
        if form == "jpeg" and _is_turned(picture):
            conversions.append("exif-orientation")
            shown = ImageOps.exif_transpose(shown)
        encoded = _as_png(shown) if rewrite else None
    except BadPictureError:
        raise
    except Exception as error:
        # As above: whatever a decoder raises here, the file is damaged or truncated.
        raise BadPictureError("damaged", f"{form}: {_line(error)}") from error
    return encoded, shown, tuple(conversions)


def _is_turned(picture: Image.Image) -> bool:
    """Tell whether EXIF asks for a turn or a mirror; reads EXIF only where there is some."""
    return "exif" in picture.info and picture.getexif().get(EXIF_ORIENTATION, 1) in range(2, 9)


def _high_bytes(picture: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8-bit grey, by the high byte, as PNG decoders strip it."""
    return Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8))


def _as_png(picture: Image.Image) -> bytes:
    """Encode in a form that every decoder reads alike: 8-bit grey or RGB, alpha over white."""
    if picture.mode not in ("L", "RGB"):
        picture = _over_white(picture)
    buffer = io.BytesIO()
    Image.frombytes(picture.mode, picture.size, picture.tobytes()).save(
        buffer, "PNG", compress_level=6
    )
    return buffer.getvalue()


def _over_white(picture: Image.Image) -> Image.Image:
    """Return `picture` as RGB, its alpha (if any) laid over white."""
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        with_alpha = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return picture.convert("RGB")


def _served_bmp(data: bytes) -> bool:
    """Tell whether the model's decoding reads a BMP: 8, 24 or 32 bits, uncompressed."""
    header, _, _, _, bits, compression = struct.unpack_from("<IiiHHI", data, 14)
    return header >= 40 and bits in (8, 24, 32) and compression == 0


def _png_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return a PNG's chunks by name (IDAT joined), having checked every CRC and the closing chunk.

    Stricter decoders check them when serving, so what they would refuse must not pass here.
    """
    position, view = 8, memoryview(data)
    chunks: dict[bytes, bytes] = {}
    parts: list[memoryview] = []
    try:
        while True:
            length, name = _CHUNK.unpack_from(data, position)
            after = position + 8 + length
            (crc,) = _CRC.unpack_from(data, after)
            if zlib.crc32(view[position + 4 : after]) != crc:
                raise BadPictureError(
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
        raise BadPictureError("damaged", "png: truncated, no closing chunk") from error


def _simple_png(data: bytes, chunks: dict[bytes, bytes]) -> tuple[int, int] | None:
    """Return the size of a PNG of 8-bit grey or RGB with nothing special, None for all others.

    Most of them are; Pillow's general reader takes several times as long to open a small one as
    its decoder to unpack it.
    """
    if chunks.keys() - _PLAIN_CHUNKS or len(chunks.get(b"IHDR", b"")) != 13:
        return None
    width, height, bits, colour, packing, filters, interlaced = _HEADER.unpack(chunks[b"IHDR"])
    if bits != 8 or colour not in (0, 2) or packing or filters or interlaced:
        return None
    return (width, height) if width and height else None


def _decode_simple_png(
    data: bytes, chunks: dict[bytes, bytes], size: tuple[int, int]
) -> Image.Image:
    """Decode by Pillow's own decoder of PNG pixels, without opening a file."""
    mode = "L" if data[25] == 0 else "RGB"
    try:
        return Image.frombytes(mode, size, chunks[b"IDAT"], "zip", mode)
    except Exception as error:
        # As in _decode: whatever the decoder raises, the file is damaged.
        raise BadPictureError("damaged", f"png: {_line(error)}") from error


def _look_at(
    shown: Image.Image, encoded: bytes | None, form: str, conversions: tuple[str, ...], look: bool
) -> Look:
    """Measure the decoded picture: its size, darkness, structure and hash."""
    width, height = shown.size
    shrink = min(width, height) // (2 * LOOK_PX)
    small = shown
    if shrink > 1 and shown.mode in ("L", "RGB", "RGBA", "LA"):
        small = shown.reduce(shrink)
    if conversions and (small.mode not in ("L", "RGB") or "transparency" in small.info):
        small = _over_white(small)
    grey = small if small.mode == "L" else small.convert("L")
    levels = grey.tobytes()
    mean, deviation = _levels(levels)
    notes = []
    if deviation < FLAT_LEVELS:
        notes.append("flat")
    if mean < DARK_LEVELS:
        notes.append("dark")
    hash64, thumb = 0, b""
    if look:
        if min(width, height) < MIN_LOOK_SIDE_PX or deviation < FLAT_LEVELS:
            pixels = levels if grey is shown else shown.tobytes()
            hash64 = _pixel_hash(shown, pixels)
        else:
            tiny = grey.resize((LOOK_PX, LOOK_PX), Resampling.BOX)
            thumb = tiny.tobytes()
            hash64 = int.from_bytes(np.packbits(imagehash.phash(tiny).hash.ravel()).tobytes())
    return Look(encoded, form, width, height, hash64, thumb, conversions, tuple(notes))


def _levels(grey: bytes) -> tuple[float, float]:
    """Return mean and standard deviation of 8-bit grey levels."""
    # Not by numpy's std, which takes longer than decoding a small picture.
    levels = np.frombuffer(grey, dtype=np.uint8).astype(np.float32)
    mean = float(levels.sum()) / len(levels)
    square = float(levels.dot(levels)) / len(levels)
    return mean, max(0.0, square - mean * mean) ** 0.5


def _pixel_hash(shown: Image.Image, pixels: bytes) -> int:
    """Return a 64-bit hash of size, mode and pixels."""
    start = hashlib.blake2b(b"%d %d " % shown.size + shown.mode.encode(), digest_size=8)
    start.update(pixels)
    return int.from_bytes(start.digest())


def _describe_other(data: bytes) -> tuple[str, str]:
    """Say what a file is that is not a picture of ours."""
    start = data[:512]
    known = {
        b"II*\x00": "TIFF", b"MM\x00*": "TIFF", b"PK\x03\x04": "zip archive", b"\x1f\x8b": "gzip",
        b"%PDF": "PDF", b"8BPS": "PSD", b"\x00\x00\x01\x00": "ICO",
    }  # fmt: skip
    for magic, name in known.items():
        if start.startswith(magic):
            return "unsupported-format", name
    if start[4:8] == b"ftyp":
        return "unsupported-format", f"{start[8:12].decode('latin-1').strip()} (HEIF or AVIF)"
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "not-a-picture", "an HTML page"
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:
            return "unsupported-format", f"unknown, starts with {start[:8].hex(' ')}"
    return "not-a-picture", "text"


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
