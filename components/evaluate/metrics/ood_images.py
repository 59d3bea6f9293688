"""Reads out-of-distribution images, which belong to no class, from a folder or a dataset."""

from __future__ import annotations

from pathlib import Path

from regraft_core.formats.manifests.dataset import SPLITS, DatasetManifest
from regraft_core.formats.records import read_split
from regraft_core.images.file_types import has_image_suffix, starts_as_image
from regraft_core.runtime.errors import DataError, InputError

MAX_IMAGES = 2000


def read_ood_images(source: str) -> list[bytes]:
    """Return the encoded images of `source`, at most 2000, in a fixed order.

    Args:
        source: the folder of a dataset (all splits are read), or a folder of images at any depth.

    Raises:
        InputError: `source` is not a folder.
        DataError: it contains no image.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise InputError(f"ood_images: expected a folder of images, got {source}")
    if (folder / DatasetManifest.file_name).is_file():
        images = [r.encoded for split in SPLITS for r in read_split(folder, split)]  # type: ignore[arg-type]
    else:
        files = (
            path
            for path in sorted(folder.rglob("*"))
            if has_image_suffix(path.name) or starts_as_image(path)
        )
        images = [path.read_bytes() for path in files if path.is_file()]
    if not images:
        raise DataError(f"ood_images: expected images in {source}, found none")
    step = max(1, len(images) / MAX_IMAGES)
    return [images[int(k * step)] for k in range(min(len(images), MAX_IMAGES))]
