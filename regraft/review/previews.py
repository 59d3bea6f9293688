"""Small versions of images as data URIs, so that a page needs no other file."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image, ImageOps

from components.ingest.checks.image_stats import over_white
from components.ingest.checks.image_validation import upper_bytes
from regraft_core.curation.reviewed_rows import REVIEWED_SPLITS
from regraft_core.formats.records import read_split

PREVIEW_PX, SIMILAR_PX = 320, 96


def read_previews(dataset: Path, sizes: Mapping[str, int]) -> dict[str, str]:
    """Return previews of images of train and validation by their SHA-256.

    Args:
        dataset: folder of the dataset.
        sizes: longest side in pixels by SHA-256.
    """
    records = (record for split in REVIEWED_SPLITS for record in read_split(dataset, split))
    return {one.id: preview(one.encoded, sizes[one.id]) for one in records if one.id in sizes}


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
    kind = "png" if small and max(image.size) <= SIMILAR_PX else "jpeg"
    image.save(buffer, kind, **({"quality": 85} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def needed_sizes(shown: Iterable[str], similar: Iterable[str]) -> dict[str, int]:
    """Return the longest side of the previews of a page by SHA-256."""
    return dict.fromkeys(similar, SIMILAR_PX) | dict.fromkeys(shown, PREVIEW_PX)
