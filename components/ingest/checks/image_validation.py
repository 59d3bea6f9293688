"""The checks of one image: its format, its size limit, and that all of it can be decoded.

Each image is decoded once: its whole stream, but only as many pixels as the checks need. Its bytes
are stored unchanged if the model's own decoding (regraft_core/images/preprocess.py) reads that
format, so that training and serving get the same pixels. Other images are encoded again as PNG,
which is lossless. `conversions` counts what either changes.
"""

from __future__ import annotations

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
    png_chunks,
    unfilter,
    unpack_plain,
)

try:
    from PIL import WebPImagePlugin
except ImportError:  # a Pillow built without WebP
    WebPImagePlugin = None  # type: ignore[assignment]

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff",
    ".heic", ".heif", ".avif", ".ppm", ".pgm", ".ico", ".jp2", ".svg", ".psd", ".raw", ".tga",
)  # fmt: skip
"""Files with other suffixes are read only if they start as a supported image does."""


def image_format(data: bytes) -> str:
    """Return the format of an image by its first bytes; empty if it is not a supported one."""
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


def validate_image(data: bytes, *, max_pixels: int, with_hash: bool = True) -> ImageStats:
    """Decode and measure one image.

    Args:
        data: the bytes of the file.
        max_pixels: images that declare more are not decoded.
        with_hash: include what near duplicates are found by.

    Raises:
        InvalidImageError: the file is empty, not an image, not supported, too large or damaged.
    """
    if not data:
        raise InvalidImageError("empty-file", "0 bytes")
    name = image_format(data)
    if not name:
        raise InvalidImageError(*_describe_other(data))
    chunks = png_chunks(data) if name == "png" else {}
    if plain := unpack_plain(chunks, max_pixels=max_pixels):
        return measure_image(_decode_plain(plain), with_hash=with_hash)
    image = _open(data, name)
    width, height = image.size
    if width * height > max_pixels:
        raise InvalidImageError("too-many-pixels", f"{width} x {height}, more than {max_pixels}")
    try:
        if chunks:
            check_stream(chunks[b"IDAT"], width * height)
        decoded = _decode(image, data, name)
    except Exception as error:
        # Whatever a decoder raises here, the file is damaged or truncated.
        raise InvalidImageError("damaged", f"{name}: {_one_line(error)}") from error
    return measure_image(decoded, with_hash=with_hash)


def _open(data: bytes, name: str) -> Image.Image:
    """Read the header with the one decoder of the format."""
    try:
        if name == "jpeg":
            return JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        if name == "png":
            return PngImagePlugin.PngImageFile(io.BytesIO(data))
        if name == "gif":
            return GifImagePlugin.GifImageFile(io.BytesIO(data))
        if name == "bmp":
            return BmpImagePlugin.BmpImageFile(io.BytesIO(data))
        if WebPImagePlugin is None:
            raise InvalidImageError("unsupported-format", "WebP; this Pillow was built without it")
        return WebPImagePlugin.WebPImageFile(io.BytesIO(data))
    except InvalidImageError:
        raise
    except Exception as error:
        # A decoder may raise anything on hostile bytes; each means that this file is damaged.
        raise InvalidImageError("damaged", f"{name} header: {_one_line(error)}") from error


def _decode_plain(png: PlainPng) -> DecodedImage:
    return DecodedImage(unfilter([png]).crop((0, 0, *png.size)), png.size)


def _decode(image: Image.Image, data: bytes, name: str) -> DecodedImage:
    """Decode all pixels; note what the stored bytes or the model's decoding change."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        check_markers(data)
        return decode_jpeg(image)
    conversions = []
    mode = image.mode
    encode_again = False
    if getattr(image, "is_animated", False):
        conversions.append("animated")
        # The model's decoding unpacks every frame of a WebP before it takes the first.
        encode_again = name == "webp"
    image.load()
    pixels: Image.Image = image
    if name == "png" and data[24] == 16:
        conversions.append("16-bit")
        pixels = upper_bytes(image) if mode.startswith("I") else image
    if mode in ("P", "PA"):
        conversions.append("palette")
    if mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        conversions.append("alpha")
    if name == "bmp" and not _is_served_bmp(data):
        conversions.append("bmp-variant")
        encode_again = True
    encoded = _as_png(pixels) if encode_again else None
    return DecodedImage(pixels, pixels.size, tuple(conversions), encoded)


def upper_bytes(image: Image.Image) -> Image.Image:
    """Return 16-bit gray as 8-bit gray by the upper byte, as PNG decoders do."""
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))


def _as_png(image: Image.Image) -> bytes:
    """Encode so that all decoders return the same pixels: 8-bit gray or RGB, alpha over white."""
    if image.mode not in ("L", "RGB"):
        image = over_white(image)
    buffer = io.BytesIO()
    Image.frombytes(image.mode, image.size, image.tobytes()).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _is_served_bmp(data: bytes) -> bool:
    """Return whether the model's decoding reads a BMP: 8, 24 or 32 bits, uncompressed."""
    header, _, _, _, bits, compression = struct.unpack_from("<IiiHHI", data, 14)
    return header >= 40 and bits in (8, 24, 32) and compression == 0


def _describe_other(data: bytes) -> tuple[str, str]:
    """Return reason and detail for a file that is not a supported image."""
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


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
