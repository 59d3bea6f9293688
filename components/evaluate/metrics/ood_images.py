"""Images that belong to no class, read from a folder or a dataset, to measure familiarity by."""

from __future__ import annotations

from pathlib import Path

from regraft_core.formats.manifests import SPLITS, DatasetManifest
from regraft_core.formats.records import read_split
from regraft_core.runtime.errors import DataError, InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")
MOST = 2000


def read_ood_images(source: str) -> list[bytes]:
    """Return the encoded images of `source`, at most 2000, in a fixed order.

    Args:
        source: a dataset's folder (all its splits count), or a folder with images at any depth.

    Raises:
        InputError: `source` is no folder.
        DataError: it holds no image.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise InputError(f"unfamiliar: expected a folder of images, got {source}")
    if (folder / DatasetManifest.file_name).is_file():
        found = [r.encoded for split in SPLITS for r in read_split(folder, split)]  # type: ignore[arg-type]
    else:
        files = (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES)
        found = [path.read_bytes() for path in files if path.is_file()]
    if not found:
        raise DataError(f"unfamiliar: expected images ({', '.join(SUFFIXES)}) in {source}")
    step = max(1, len(found) / MOST)
    return [found[int(k * step)] for k in range(min(len(found), MOST))]
