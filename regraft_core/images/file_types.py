"""Which files are images: by their names, or by their first bytes."""

from __future__ import annotations

from pathlib import Path

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff",
    ".heic", ".heif", ".avif", ".ppm", ".pgm", ".ico", ".jp2", ".svg", ".psd", ".raw", ".tga",
    ".dcm", ".dicom", ".jxl",
)  # fmt: skip
"""Files with other suffixes are read only if they start as a supported image does."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SCAN = b"\xff\xda"
JPEG_SCANS, JPEG_BYTES_PER_SCAN = 100, 8192
"""A JPEG may have so many scans, and one more per so many bytes. A scan of some bytes can take as
long as all pixels; cameras and programs write up to about 20. The bytes of its marker occur by
chance, too, once in 64 KB of metadata or of a video behind the image."""
PNG_TEXT, PNG_TEXTS = b"TXt", 16
"""Part of the name of a compressed text in a PNG (zTXt, iTXt), and how many there may be, because
TensorFlow's decoder unpacks each of them: 8 KB become 8 MB."""
_BMP_BYTES = 54


def image_format(data: bytes) -> str:
    """Return the format of an image by its first bytes; empty if it is not a supported one."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(PNG_SIGNATURE):
        return "png"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM" and len(data) >= _BMP_BYTES:
        return "bmp"
    if data[:4] in (b"II*\x00", b"MM\x00*"):
        return "tiff"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "avif"
    return ""


def jpeg_scan_limit(size: int) -> int:
    """Return how many scans a JPEG of `size` bytes may have."""
    return JPEG_SCANS + size // JPEG_BYTES_PER_SCAN


def has_image_suffix(name: str) -> bool:
    """Return whether a name has the suffix of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def starts_as_image(file: str | Path) -> bool:
    """Return whether a regular file starts as a supported image does."""
    try:
        if not Path(file).is_file():
            return False
        with open(file, "rb") as opened:
            return bool(image_format(opened.read(64)))
    except OSError:
        return False
