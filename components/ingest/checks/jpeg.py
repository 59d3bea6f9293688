"""JPEG files: their markers, and a small gray version decoded from the whole stream."""

from __future__ import annotations

import re

from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from components.ingest.checks.bounded_file import piece_limit
from components.ingest.checks.image_stats import THUMBNAIL_PX, DecodedImage
from regraft_core.images.file_types import JPEG_SCAN, jpeg_scan_limit

EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
# In the compressed data, 0xFF is followed by 0 or by the number of a restart.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_END = b"\xd9"


def check_markers(data: bytes) -> None:
    """Follow a JPEG's segments to its end marker.

    Pillow's decoder stops at the last pixel. TensorFlow's reads on and refuses a file that ends
    inside a segment, which damage in the compressed data can cause.

    Raises:
        ValueError: there is no end marker after the last segment, or there are so many scans or
            segments that decoding could take minutes.
    """
    scans, most = data.count(JPEG_SCAN), jpeg_scan_limit(len(data))
    if scans > most:
        raise ValueError(f"expected at most {most} scans, found {scans}")
    position, left = 2, piece_limit(len(data))
    while found := _MARKER.search(data, position):
        left -= 1
        if found[1] == _END or not left:
            break
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    if not found:
        raise ValueError("no end marker")
    if not left:
        raise ValueError("too many segments")


def decode_jpeg(image: JpegImageFile) -> DecodedImage:
    """Read a whole JPEG, but compute only a small gray version of it.

    The whole stream is decompressed at any scale, so damage and truncation are found as in full
    size; the steps that are skipped (the inverse transform, colors) cannot fail.
    """
    width, height = image.size
    conversions = []
    if image.mode == "CMYK":
        conversions.append("cmyk")
    image.draft("L", (2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX))
    image.load()
    pixels: Image.Image = image
    # Without EXIF data, getexif takes longer than this check.
    orientation = image.getexif().get(EXIF_ORIENTATION, 1) if "exif" in image.info else 1
    if orientation in range(2, 9):
        conversions.append("exif-orientation")
        pixels = ImageOps.exif_transpose(image)
    size = (height, width) if orientation in SIDEWAYS else (width, height)
    return DecodedImage(pixels, size, tuple(conversions))
