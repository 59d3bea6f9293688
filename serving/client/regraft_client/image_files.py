"""Which files are images, and images of formats that models do not read."""

from __future__ import annotations

import io
from pathlib import Path

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff",
    ".heic", ".heif", ".avif", ".ppm", ".pgm", ".ico", ".jp2", ".svg", ".psd", ".raw", ".tga",
    ".dcm", ".dicom", ".jxl",
)  # fmt: skip
"""Those that `regraft ingest` reads as images; other files are images if they start as one."""
SYSTEM_NAMES = frozenset(
    {
        "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini",
        "$recycle.bin", "recycler", "system volume information",
        "@eadir", "#recycle", "#snapshot", "@tmp", "@recycle", "@recently-snapshot",
        "lost+found", "__pycache__",
    }
)  # fmt: skip
"""What systems and programs add to folders; `regraft ingest` ignores it, and hidden files."""
MAX_PIXELS = 100_000_000
_TIFF, _AVIF = (b"II*\0", b"MM\0*"), (b"ftypavif", b"ftypavis")


def is_system_path(path: Path) -> bool:
    """Return whether a relative path, or a folder in it, is hidden or was added by a system."""
    return any(part.startswith(".") or part.lower() in SYSTEM_NAMES for part in path.parts)


def is_image_file(path: Path) -> bool:
    """Return whether a file is an image by its name, or by its first bytes."""
    if not path.is_file():
        return False
    if path.name.lower().endswith(SUFFIXES):
        return True
    try:
        with open(path, "rb") as file:
            return starts_as_image(file.read(64))
    except OSError:
        return False


def starts_as_image(start: bytes) -> bool:
    """Return whether the first bytes of a file are those of a format that ingest reads."""
    return (
        start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", *_TIFF))
        or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
        or (start[:2] == b"BM" and len(start) >= 54)
        or start[4:12] in _AVIF
    )


def to_served(data: bytes) -> bytes:
    """Return a TIFF or AVIF as PNG without loss, as `regraft ingest` stores it, and others as is.

    It needs Pillow (the extra `images`; 11.3 or later for AVIF). What cannot be converted is
    returned as it is, so that the model refuses it.
    """
    if not data.startswith(_TIFF) and data[4:12] not in _AVIF:
        return data
    try:
        from PIL import Image, ImageOps
    except ImportError:
        return data
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=("TIFF", "AVIF"))
        # Each tile of a TIFF is decoded as a whole.
        tags = getattr(image, "tag_v2", {})
        largest = max(image.width * image.height, tags.get(322, 0) * tags.get(323, 0))
        if largest > MAX_PIXELS or image.mode in ("I", "F"):
            return data
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            # The upper 8 of 16 bits, as decoders of PNG take them.
            image = image.convert("I").point(lambda level: level / 256).convert("L")
        elif image.mode not in ("L", "RGB"):
            over = image.convert("RGBA")
            white = Image.new("RGBA", over.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, over).convert("RGB")
        converted = io.BytesIO()
        image.save(converted, "PNG")
    except Exception:
        # Whatever a decoder raises, the file is damaged.
        return data
    return converted.getvalue()
