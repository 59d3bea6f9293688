"""JPEG files: their markers, and all of their stream for few of their pixels."""

from __future__ import annotations

import re

from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from components.ingest.checks.image_stats import LOOK_PX, DecodedImage

EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
# In the compressed data, 0xFF is followed by 0 or by the number of a restart.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_END = b"\xd9"


def check_markers(data: bytes) -> None:
    """Follow a JPEG's segments to the marker of its end.

    Pillow's decoder stops at the last pixel. TensorFlow's reads on, and refuses a file that ends in
    a segment, as damage within the compressed data can make it seem.

    Raises:
        ValueError: there is no end marker where the segments lead to.
    """
    position = 2
    while found := _MARKER.search(data, position):
        if found[1] == _END:
            return
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    raise ValueError("no end marker")


def decode_jpeg(image: JpegImageFile) -> DecodedImage:
    """Read all of a JPEG, but compute only a small gray version of it.

    The whole stream is unpacked whatever the scale, so damage and truncation are found as in full
    size; what is left out (the transform to pixels, colors) cannot fail.
    """
    width, height = image.size
    conversions = []
    if image.mode == "CMYK":
        conversions.append("cmyk")
    image.draft("L", (2 * LOOK_PX, 2 * LOOK_PX))
    image.load()
    shown: Image.Image = image
    # EXIF is parsed only where there is some, which takes longer than to look.
    turn = image.getexif().get(EXIF_ORIENTATION, 1) if "exif" in image.info else 1
    if turn in range(2, 9):
        conversions.append("exif-orientation")
        shown = ImageOps.exif_transpose(image)
    size = (height, width) if turn in SIDEWAYS else (width, height)
    return DecodedImage(shown, size, tuple(conversions))
