"""Images as users have them, turned into the encoded bytes that a model accepts.

Arrays and PIL images are encoded without loss, so that one preprocessing serves every image.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from regraft_client.image_files import to_served
from regraft_client.predict_files import MAX_FILE_BYTES
from regraft_core.runtime.errors import InputError

ImageInput = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any]
EXPECTED = "a path, bytes, a PIL image or an array"
CHANNELS = (1, 3, 4)
# Modes that PNG stores as they are; the others become RGB or RGBA.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_MODES_WITHOUT_RANGE = ("I", "F")


class ImageError(InputError):
    """An image that cannot be predicted.

    Attributes:
        image: Its path, or `image N` with its index from 0 if it was not given as a path.
        reason: What was expected of it.
    """

    def __init__(self, image: str, reason: str) -> None:
        super().__init__(f"{image}: {reason}")
        self.image, self.reason = image, reason


def iterate_images(images: ImageInput | Iterable[ImageInput]) -> Iterator[ImageInput]:
    """Yield images one by one; `images` is one image or several.

    Raises:
        InputError: it is neither.
    """
    if _is_one(images):
        yield cast(ImageInput, images)
    elif isinstance(images, Iterable):
        yield from cast(Iterable[ImageInput], images)
    else:
        raise InputError(f"images: expected {EXPECTED}, or several, got {type(images).__name__}")


def name_image(image: ImageInput, index: int) -> str:
    """Return how an image is called in messages: by its path, or by its index from 0."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {index}"


def encode_image(image: ImageInput) -> bytes:
    """Return an image's encoded bytes.

    Raises:
        ValueError: it cannot be read, or is not an image; with the reason.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return _read_file(Path(image))
    if isinstance(image, Image.Image):
        return _encode_pil(image)
    if hasattr(image, "__array__"):
        return encode_array(np.asarray(image))
    raise ValueError(f"expected {EXPECTED}, got {type(image).__name__}")


def _is_one(images: Any) -> bool:
    if isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image):
        return True
    # Arrays of another rank are several images, or their paths.
    return hasattr(images, "__array__") and np.ndim(images) in (2, 3)


def _read_file(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ValueError("expected an image file, got a folder")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"expected at most {MAX_FILE_BYTES} bytes, got {size}")
        return to_served(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read the file: {error.strerror}") from error


def _encode_pil(image: Image.Image) -> bytes:
    """Encode a PIL image as PNG, turned upright by its EXIF orientation."""
    if image.mode in _MODES_WITHOUT_RANGE:
        raise ValueError(f"expected a PIL image of 8 bits per channel, got mode {image.mode}")
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode not in _PNG_MODES:
            upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
        buffer = io.BytesIO()
        upright.save(buffer, "PNG", compress_level=0)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's, for a damaged file
        raise ValueError(f"cannot read the PIL image: {error}") from error
    return buffer.getvalue()


def encode_array(array: NDArray[Any]) -> bytes:
    """Encode whole numbers 0 to 255, [height, width] or [height, width, channels], as PNG.

    Raises:
        ValueError: the array has another shape or other values.
    """
    channels = array.shape[2:] or (1,)
    if array.ndim not in (2, 3) or channels[0] not in CHANNELS or 0 in array.shape:
        raise ValueError(
            "expected an array [height, width] or [height, width, 1, 3 or 4 channels], "
            f"got shape {list(array.shape)}"
        )
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"expected an array of whole numbers 0 to 255, got {array.dtype}; convert it, from "
            "0..1 by (array * 255).round().astype('uint8')"
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        raise ValueError(f"expected an array of whole numbers 0 to 255, got {low} to {high}")
    pixels = array.astype(np.uint8)
    return _encode_pil(Image.fromarray(pixels[..., 0] if array.shape[2:] == (1,) else pixels))
