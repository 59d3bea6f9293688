"""Cuts boxes out of images: each becomes a PNG of its own."""

from __future__ import annotations

import hashlib
import io

from PIL import Image, ImageOps

from components.ingest.checks.image_validation import as_png, upper_bytes, validate_image
from components.ingest.checks.invalid_image import InvalidImageError
from components.ingest.sources.folders import Crop

INVALID_BOX = "invalid-box"
CLIPPED = "clipped-box"


class CropReader:
    """Cuts boxes; the last image stays decoded, because the boxes of one follow each other."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._digest = b""
        self._image = Image.new("L", (1, 1))

    def cut(self, data: bytes, crop: Crop) -> tuple[bytes, bool]:
        """Return the part of an image in a box as a PNG, and whether the box was clipped.

        A box refers to the pixels as they are stored or, if only then the annotated size is that
        of the image, as they are shown (EXIF orientation).

        Args:
            data: the bytes of the image.
            crop: the box.

        Raises:
            InvalidImageError: the image is invalid, has another size than annotated, or has no
                pixel in the box.
        """
        image = self._upright(self._decode(data), crop)
        left, top = max(0, round(crop.left)), max(0, round(crop.top))
        right, bottom = min(image.width, round(crop.right)), min(image.height, round(crop.bottom))
        if right <= left or bottom <= top:
            raise InvalidImageError(
                INVALID_BOX,
                f"no pixel of {image.width} x {image.height} is in the box "
                f"{crop.left:g}, {crop.top:g}, {crop.right:g}, {crop.bottom:g}",
            )
        edges = (left, top, right, bottom)
        clipped = edges != tuple(map(round, crop[:4]))
        return as_png(ImageOps.exif_transpose(image.crop(edges))), clipped

    def _decode(self, data: bytes) -> Image.Image:
        digest = hashlib.sha256(data).digest()
        if digest != self._digest:
            stats = validate_image(data, max_pixels=self._max_pixels, with_hash=False)
            with Image.open(io.BytesIO(data if stats.encoded is None else stats.encoded)) as image:
                image.load()
                self._image = upper_bytes(image) if image.mode.startswith("I") else image.copy()
            self._digest = digest
        return self._image

    @staticmethod
    def _upright(image: Image.Image, crop: Crop) -> Image.Image:
        if not crop.width or not crop.height or (crop.width, crop.height) == image.size:
            return image
        shown = ImageOps.exif_transpose(image)
        if (crop.width, crop.height) != shown.size:
            raise InvalidImageError(
                INVALID_BOX,
                f"annotated as {crop.width} x {crop.height}, is {image.width} x {image.height}",
            )
        return shown
