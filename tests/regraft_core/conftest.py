"""Encoded images of every supported kind, and Pillow's result for them."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

WIDTH, HEIGHT = 47, 31


def asymmetric_image() -> Image.Image:
    """Return a small color image without symmetries."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = [np.sin(x / 7 + y / 3), np.cos(x * y / 90), np.sin(x / 5 - y / 4)]
    return Image.fromarray((np.stack(waves, -1) * 127 + 128).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif_jpeg(tiff: bytes) -> bytes:
    """Return a JPEG with `tiff` in its EXIF segment."""
    segment = b"Exif\0\0" + tiff
    jpeg = encode(asymmetric_image(), "JPEG", quality=92)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def tiff(orientation: int, order: str = "<", kind: int = 3, tag: int = 0x0112) -> bytes:
    """Return a TIFF directory of three tags, the orientation among them."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entries = [(0x010F, 2, 4, b"abc\0"), (tag, kind, 1, struct.pack(order + "HH", orientation, 0))]
    entries.append((0x0131, 2, 4, b"def\0"))
    directory = b"".join(struct.pack(order + "HHI", *e[:3]) + e[3] for e in entries)
    return mark + struct.pack(order + "IH", 8, len(entries)) + directory + bytes(4)


def by_pillow(encoded: bytes) -> np.ndarray:
    """Return an image decoded by Pillow: upright, over white, RGB."""
    image: Image.Image = Image.open(io.BytesIO(encoded))
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return np.asarray(white)
    return np.asarray(image.convert("RGB"))


def _samples() -> dict[str, bytes]:
    image = asymmetric_image()
    alpha = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
    clear = image.convert("RGBA")
    clear.putalpha(Image.fromarray(alpha))
    palette, turned = image.convert("P"), image.transpose(Image.Transpose.ROTATE_180)
    corner = image.getpixel((0, 0))
    animation = {"save_all": True, "append_images": [turned, turned]}
    samples = {
        "jpeg": encode(image, "JPEG", quality=90),
        "jpeg 4:4:4": encode(image, "JPEG", quality=60, subsampling=0),
        "jpeg progressive": encode(image, "JPEG", progressive=True),
        "jpeg gray": encode(image.convert("L"), "JPEG"),
        "jpeg cmyk": encode(image.convert("CMYK"), "JPEG"),
        "png": encode(image, "PNG"),
        "png gray": encode(image.convert("L"), "PNG"),
        "png gray alpha": encode(clear.convert("LA"), "PNG"),
        "png 1 bit": encode(image.convert("1"), "PNG"),
        "png alpha": encode(clear, "PNG"),
        "png palette": encode(palette, "PNG"),
        "png palette clear": encode(palette, "PNG", transparency=palette.getpixel((0, 0))),
        "png color clear": encode(image, "PNG", transparency=corner),
        "gif": encode(palette, "GIF"),
        "gif gray": encode(image.convert("L"), "GIF"),
        "gif clear": encode(palette, "GIF", transparency=palette.getpixel((0, 0))),
        "gif animated": encode(image, "GIF", **animation),
        "gif animated clear": encode(clear, "GIF", save_all=True, append_images=[turned]),
        "bmp": encode(image, "BMP"),
        "bmp gray": encode(image.convert("L"), "BMP"),
        "bmp palette": encode(palette, "BMP"),
        "bmp alpha": encode(clear, "BMP"),
        "webp": encode(image, "WEBP", quality=80),
        "webp lossless": encode(image, "WEBP", lossless=True),
        "webp alpha": encode(clear, "WEBP", quality=80),
        "webp lossless alpha": encode(clear, "WEBP", lossless=True),
        "webp animated": encode(image, "WEBP", lossless=True, **animation),
    }
    samples["webp animated opaque"] = opaque = encode(image, "WEBP", quality=90, **animation)
    first = opaque.index(b"ANMF")
    end = first + 8 + int.from_bytes(opaque[first + 4 : first + 8], "little")
    once = opaque[8 : end + end % 2]
    samples["webp animated once"] = b"RIFF" + struct.pack("<I", len(once)) + once
    for orientation in range(1, 9):
        for order, name in (("<", "little"), (">", "big")):
            samples[f"exif {orientation} {name}"] = exif_jpeg(tiff(orientation, order))
    return samples


SAMPLES = _samples()


@pytest.fixture(scope="session")
def samples() -> dict[str, bytes]:
    """Return one encoded image of each kind by name."""
    return SAMPLES


@pytest.fixture(params=sorted(SAMPLES))
def sample(request: pytest.FixtureRequest) -> bytes:
    """Return one encoded image after the other."""
    return SAMPLES[request.param]


@pytest.fixture(scope="session")
def pillow() -> Callable[[bytes], np.ndarray]:
    """Return the reference decoder."""
    return by_pillow
