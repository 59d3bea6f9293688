"""One image: is it one, what is it, and in which bytes is it stored.

Each image is decoded once: all of its stream, but only as many pixels as must be looked at. Its
bytes are kept as they are wherever the model's own decoding (regraft_core/images/preprocess.py)
reads that form, so that training sees what serving will; what it cannot read is written again as
PNG, which loses nothing. What either changes is counted in `conversions`. The look of an image (a
small gray version) serves to find near duplicates and dark or empty images.
"""

from __future__ import annotations

import functools
import io
import struct

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin

from components.ingest.checks.image_stats import DecodedImage, ImageStats, measure_image, over_white
from components.ingest.checks.invalid_image import InvalidImageError
from components.ingest.checks.jpeg import check_markers, decode_jpeg
from components.ingest.checks.png import (
    SIGNATURE,
    PlainPng,
    check_stream,
    decode_plain,
    plain_png,
    png_chunks,
)

try:
    from PIL import WebPImagePlugin
except ImportError:  # pragma: no cover - a Pillow built without WebP
    WebPImagePlugin = None  # type: ignore[assignment]

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff",
    ".heic", ".heif", ".avif", ".ppm", ".pgm", ".ico", ".jp2", ".svg", ".psd", ".raw", ".tga",
)  # fmt: skip


def sniff(data: bytes) -> str:
    """Name the form of an image by its first bytes; an empty string if it is none of ours."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(SIGNATURE):
        return "png"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM" and len(data) >= 54:
        return "bmp"
    return ""


def examine(data: bytes, *, max_pixels: int, look: bool = True) -> ImageStats:
    """Decode an image once and say what is needed to store, split and compare it.

    Args:
        data: the bytes of the file.
        max_pixels: an image that claims more is not decoded.
        look: whether near duplicates will be looked for.

    Raises:
        BadImageError: the file is empty, no image, of another form, too large or damaged.
    """
    if not data:
        raise InvalidImageError("empty-file", "0 bytes")
    form = sniff(data)
    if not form:
        raise InvalidImageError(*_describe_other(data))
    chunks = png_chunks(data) if form == "png" else {}
    plain = plain_png(chunks)
    if plain:
        size, decode = plain.size, functools.partial(_decode_plain, plain)
    else:
        image = _open(data, form)
        size, decode = image.size, functools.partial(_decode, image, data, form)
    width, height = size
    if width * height > max_pixels:
        raise InvalidImageError("too-many-pixels", f"{width} x {height}, more than {max_pixels}")
    try:
        if chunks and not plain:
            check_stream(chunks[b"IDAT"], width * height)
        seen = decode()
    except Exception as error:
        # Whatever a decoder raises here, the file is damaged or truncated.
        raise InvalidImageError("damaged", f"{form}: {_line(error)}") from error
    return measure_image(seen, form, hashed=look)


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
            raise InvalidImageError("unsupported-format", "WebP; this Pillow was built without it")
        return WebPImagePlugin.WebPImageFile(io.BytesIO(data))
    except InvalidImageError:
        raise
    except Exception as error:
        # A decoder may raise anything on hostile bytes; each means that this file is damaged.
        raise InvalidImageError("damaged", f"{form} header: {_line(error)}") from error


def _decode_plain(plain: PlainPng) -> DecodedImage:
    return DecodedImage(decode_plain(plain), plain.size)


def _decode(image: Image.Image, data: bytes, form: str) -> DecodedImage:
    """Decode all pixels and say what the stored bytes or the model's decoding change."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        check_markers(data)
        return decode_jpeg(image)
    conversions = []
    mode = image.mode
    rewrite = False
    if getattr(image, "is_animated", False):
        conversions.append("animated")
        # The model's decoding unpacks every frame of a WebP before it takes the first.
        rewrite = form == "webp"
    image.load()
    shown: Image.Image = image
    if form == "png" and data[24] == 16:
        conversions.append("16-bit")
        shown = _high_bytes(image) if mode.startswith("I") else image
    if mode in ("P", "PA"):
        conversions.append("palette")
    if mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        conversions.append("alpha")
    if form == "bmp" and not _served_bmp(data):
        conversions.append("bmp-variant")
        rewrite = True
    encoded = _as_png(shown) if rewrite else None
    return DecodedImage(shown, shown.size, tuple(conversions), encoded)


def _high_bytes(image: Image.Image) -> Image.Image:
    """Return 16-bit gray as 8-bit gray, by the high byte, as PNG decoders strip it."""
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))


def _as_png(image: Image.Image) -> bytes:
    """Encode in a form that every decoder reads alike: 8-bit gray or RGB, alpha over white."""
    if image.mode not in ("L", "RGB"):
        image = over_white(image)
    buffer = io.BytesIO()
    Image.frombytes(image.mode, image.size, image.tobytes()).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _served_bmp(data: bytes) -> bool:
    """Tell whether the model's decoding reads a BMP: 8, 24 or 32 bits, uncompressed."""
    header, _, _, _, bits, compression = struct.unpack_from("<IiiHHI", data, 14)
    return header >= 40 and bits in (8, 24, 32) and compression == 0


def _describe_other(data: bytes) -> tuple[str, str]:
    """Say what a file is that is not an image of ours."""
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
        return "not-an-image", "an HTML page"
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:
            return "unsupported-format", f"unknown, starts with {start[:8].hex(' ')}"
    return "not-an-image", "text"


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
