"""Small versions of images as data URIs, so that a page needs no other file."""

from __future__ import annotations

import base64
import io
import warnings

from PIL import Image, ImageOps

from components.ingest.checks.image_stats import over_white
from components.ingest.checks.image_validation import upper_bytes

# A smaller image is stored without loss, so that its pixels can be seen enlarged.
SMALL_PX = 96


def preview(encoded: bytes, longest_px: int) -> str:
    """Return an image, at most so large, as a data URI; a small one keeps its pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unusual EXIF data and palettes do not matter here
        image: Image.Image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
        if image.mode.startswith("I"):
            image = upper_bytes(image)
        small = max(image.size) <= longest_px
        image.thumbnail((longest_px, longest_px))
        image = over_white(image)
    buffer = io.BytesIO()
    kind = "png" if small and max(image.size) <= SMALL_PX else "jpeg"
    image.save(buffer, kind, **({"quality": 85} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
