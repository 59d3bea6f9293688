"""The checks of one image: its format, its size limit, and that all of it can be decoded.

Each image is decoded once: its whole stream, but only as many pixels as the checks need. Its bytes
are stored unchanged if the model's own decoding (regraft_core/images/preprocess.py) reads that
format and structure, so that training and serving get the same pixels. Whatever is not plain is
encoded again as PNG, which is lossless. `conversions` counts what either changes.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
)

from components.ingest.checks.bmp import is_served_bmp
from components.ingest.checks.bounded_file import BoundedFile
from components.ingest.checks.image_stats import DecodedImage, ImageStats, measure_image, over_white
from components.ingest.checks.invalid_image import InvalidImageError
from components.ingest.checks.jpeg import check_markers, decode_jpeg
from components.ingest.checks.png import (
    PlainPng,
    PngChunks,
    check_stream,
    core_png,
    is_served_png,
    png_chunks,
    png_header,
    unfilter,
    unpack_plain,
)
from regraft_core.images.file_types import image_format

try:
    from PIL import WebPImagePlugin
except ImportError:  # a Pillow built without WebP
    WebPImagePlugin = None  # type: ignore[assignment]

try:
    from PIL import AvifImagePlugin
except ImportError:  # Pillow before 11.3
    AvifImagePlugin = None  # type: ignore[assignment]

READ_FORMATS = "JPEG, PNG, GIF, BMP, WebP, TIFF and AVIF"
MAX_SIDE_PX = 1_000_000
"""The model's decoder refuses a PNG with a longer side."""
_REWRITTEN = ("gif", "tiff", "avif")
"""The model reads no TIFF or AVIF, and refuses a GIF with any damage that Pillow accepts."""
_RAW_TAGS, _TILE_TAGS = (50706, 50752), (322, 323)
_MAX_TILE_PIXELS = 4096 * 4096
_ANIMATION_FLAG = 2
_MAX_COLORS = 256
_PIECES_PER_PIXEL = 4
_PACKED_CHUNKS = {b"zTXt", b"iTXt", b"iCCP"}


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
    if name == "png":
        return _validate_png(data, max_pixels=max_pixels, with_hash=with_hash)
    with _without_messages() if name == "tiff" else contextlib.nullcontext():
        image = _open(data, name)
        check_sides(*image.size, max_pixels)
        try:
            decoded = _decode(image, data, name)
        except InvalidImageError:
            raise
        except Exception as error:
            # Whatever a decoder raises here, the file is damaged or truncated.
            raise InvalidImageError("damaged", f"{name}: {_one_line(error)}") from error
    return measure_image(decoded, with_hash=with_hash)


def _validate_png(data: bytes, *, max_pixels: int, with_hash: bool) -> ImageStats:
    chunks = png_chunks(data)
    if plain := unpack_plain(chunks, max_pixels=max_pixels):
        check_sides(*plain.size, max_pixels)
        return measure_image(_decode_plain(plain), with_hash=with_hash)
    header = png_header(chunks)
    check_sides(header.width, header.height, max_pixels)
    try:
        check_stream(chunks.stream, header)
        image = _open(core_png(chunks, header), "png")
        image.load()
        conversions: list[str] = []
        if b"acTL" in chunks.names:
            conversions.append("animated")
        pixels: Image.Image = image
        if header.bits == 16:
            conversions.append("16-bit")
            pixels = upper_bytes(image) if image.mode.startswith("I") else image
        encode_again = not (is_served_png(chunks, header) and _is_read_by_pillow(data, chunks))
        decoded = _decoded(image, pixels, conversions, encode_again=encode_again)
    except InvalidImageError:
        raise
    except Exception as error:
        raise InvalidImageError("damaged", f"png: {_one_line(error)}") from error
    return measure_image(decoded, with_hash=with_hash)


def _is_read_by_pillow(data: bytes, chunks: PngChunks) -> bool:
    """Return whether Pillow reads a PNG with its metadata, as the data card and the report do."""
    if len(chunks.contents.get(b"tRNS", b"")) > _MAX_COLORS:
        return False
    if not _PACKED_CHUNKS.intersection(chunks.names):
        return True
    try:
        _open(data, "png").load()
    except Exception:
        return False
    return True


def check_sides(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image that is too large to be decoded.

    Raises:
        InvalidImageError: it has more than `max_pixels`, or a side of more than `MAX_SIDE_PX`.
    """
    if width * height > max_pixels:
        raise InvalidImageError("too-many-pixels", f"{width} x {height}, more than {max_pixels}")
    if max(width, height) > MAX_SIDE_PX:
        raise InvalidImageError("too-many-pixels", f"{width} x {height}, a side over {MAX_SIDE_PX}")


def _open(data: bytes, name: str) -> Image.Image:
    """Read the header with the one decoder of the format."""
    file = BoundedFile(data)
    try:
        match name:
            case "jpeg":
                return JpegImagePlugin.JpegImageFile(file)
            case "png":
                return PngImagePlugin.PngImageFile(file)
            case "gif":
                return GifImagePlugin.GifImageFile(file)
            case "bmp":
                image = BmpImagePlugin.BmpImageFile(file)
                # Those of run lengths, which Pillow decodes in Python.
                file.allow(_PIECES_PER_PIXEL * image.width * image.height)
                return image
            case "tiff":
                return TiffImagePlugin.TiffImageFile(file)
            case "avif" if AvifImagePlugin is not None and AvifImagePlugin.SUPPORTED:
                return AvifImagePlugin.AvifImageFile(file)
            case "webp" if WebPImagePlugin is not None:
                return WebPImagePlugin.WebPImageFile(file)
    except Exception as error:
        # A decoder may raise anything on hostile bytes; each means that this file is damaged.
        raise InvalidImageError("damaged", f"{name} header: {_one_line(error)}") from error
    raise InvalidImageError(
        "unsupported-format", f"{name.upper()}; this Pillow does not read it (AVIF: 11.3 or later)"
    )


def _decode_plain(png: PlainPng) -> DecodedImage:
    return DecodedImage(unfilter([png]).crop((0, 0, *png.size)), png.size)


def _decode(image: Image.Image, data: bytes, name: str) -> DecodedImage:
    """Decode all pixels; note what the stored bytes or the model's decoding change."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        check_markers(data)
        return decode_jpeg(image)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _refuse_raw(image, data)
        _check_tiles(image)
    conversions: list[str] = []
    if name == "tiff":
        conversions.append("tiff")
    elif name == "avif":
        conversions.append("avif")
    if getattr(image, "is_animated", False):
        conversions.append("animated")
    image.load()
    pixels: Image.Image = image
    if name in ("tiff", "avif"):
        pixels = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F"):
            raise InvalidImageError("unsupported-format", f"TIFF of 32-bit values ({image.mode})")
        if image.mode.startswith("I"):
            conversions.append("16-bit")
            pixels = upper_bytes(pixels)
    encode_again = name in _REWRITTEN
    if name == "webp":
        # The model's decoding unpacks every frame of an animation before it takes the first.
        encode_again = data[12:16] == b"VP8X" and bool(data[20] & _ANIMATION_FLAG)
    elif name == "bmp" and not is_served_bmp(data):
        conversions.append("bmp-variant")
        encode_again = True
    return _decoded(image, pixels, conversions, encode_again=encode_again)


def _decoded(
    image: Image.Image, pixels: Image.Image, conversions: list[str], *, encode_again: bool
) -> DecodedImage:
    """Add what the mode of an image changes, and the bytes to store if they are new ones."""
    if image.mode in ("P", "PA"):
        conversions.append("palette")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        conversions.append("alpha")
    encoded = as_png(pixels) if encode_again else None
    return DecodedImage(pixels, pixels.size, tuple(conversions), encoded)


@contextlib.contextmanager
def _without_messages() -> Iterator[None]:
    """Drop what libtiff and Pillow print to standard error about a TIFF; errors are raised."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _refuse_raw(image: TiffImagePlugin.TiffImageFile, data: bytes) -> None:
    """Refuse the raw files of cameras, whose first image is often a small preview."""
    is_preview = bool(image.tag_v2.get(254, 0) & 1)
    if is_preview or data[8:10] == b"CR" or any(tag in image.tag_v2 for tag in _RAW_TAGS):
        raise InvalidImageError(
            "unsupported-format", "raw photograph or preview in a TIFF; convert it to JPEG or TIFF"
        )


def _check_tiles(image: TiffImagePlugin.TiffImageFile) -> None:
    """Refuse tiles that are much larger than the image, because each is decoded as a whole.

    Raises:
        ValueError: the tiles are.
    """
    width, height = (int(image.tag_v2.get(tag, 0)) for tag in _TILE_TAGS)
    if width * height > max(image.width * image.height, _MAX_TILE_PIXELS):
        raise ValueError(f"tiles of {width} x {height} pixels")


def upper_bytes(image: Image.Image) -> Image.Image:
    """Return 16-bit gray as 8-bit gray by the upper byte, as PNG decoders do."""
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))


def as_png(image: Image.Image) -> bytes:
    """Encode so that all decoders return the same pixels: 8-bit gray or RGB, alpha over white."""
    if image.mode not in ("L", "RGB"):
        image = over_white(image)
    buffer = io.BytesIO()
    Image.frombytes(image.mode, image.size, image.tobytes()).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _describe_other(data: bytes) -> tuple[str, str]:
    """Return reason and detail for a file that is not a supported image."""
    start = data[:512]
    known = {
        b"PK\x03\x04": "zip archive", b"\x1f\x8b": "gzip",
        b"%PDF": "PDF", b"8BPS": "PSD", b"\x00\x00\x01\x00": "ICO",
    }  # fmt: skip
    for magic, name in known.items():
        if start.startswith(magic):
            return "unsupported-format", name
    if start[4:8] == b"ftyp":
        brand = start[8:12].decode("latin-1").strip()
        return "unsupported-format", f"{brand} (HEIC); convert it to JPEG, such as by heif-convert"
    if start[128:132] == b"DICM":
        return "unsupported-format", "DICOM; convert it to PNG, such as by DCMTK's dcm2img"
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
