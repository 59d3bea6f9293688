"""Folders of shards: tars of WebDataset, or Parquet and Arrow tables with images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from components.ingest.sources.archives import archive_kind
from components.ingest.sources.embedded_tables import embedded_images, has_embedded_images
from components.ingest.sources.folder_listing import is_folder, scan
from components.ingest.sources.folders import LabeledFile
from components.ingest.sources.source_context import SourceContext
from components.ingest.sources.split_names import split_of_name
from components.ingest.sources.system_files import is_system_file
from components.ingest.sources.web_dataset import samples
from regraft_core.images.file_types import has_image_suffix
from regraft_core.runtime.errors import InputError

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".parquet", ".arrow", ".feather")
_NUMBERED = re.compile(r"(.+?)(?:[-_.]\d+)?(?:-of-\d+)?(?:-[0-9a-f]{16})?")


def shard_split(name: str) -> str:
    """Return the split in the name of a shard, such as train-00000-of-00003.parquet; or nothing."""
    found = _NUMBERED.fullmatch(name.rpartition("/")[2].partition(".")[0])
    return split_of_name(found[1]) or "" if found else ""


def has_shards(folder: Path) -> bool:
    """Return whether a folder, its `data`, or the folders of its splits have shards only.

    Small files, such as those that describe a data set, may be next to them.
    """
    return bool(_shards(folder))


def shard_folder_images(folder: Path, context: SourceContext) -> Iterator[LabeledFile]:
    """Yield the images of the shards of a folder.

    Raises:
        InputError: a shard cannot be read, or is neither a tar nor a table with images.
    """
    for shard, split in _shards(folder):
        yield from shard_images(shard, str(shard.relative_to(folder)), split, context)


def shard_images(
    shard: Path, name: str, split: str, context: SourceContext
) -> Iterator[LabeledFile]:
    """Yield the images of one shard.

    Args:
        shard: the file.
        name: of the shard, for messages and paths.
        split: of images without one.
        context: of the source.

    Raises:
        InputError: it cannot be read, or is neither a tar nor a table with images.
    """
    if archive_kind(shard) == "tar":
        return samples(shard, name, split, context.options)
    if has_embedded_images(shard, name):
        return embedded_images(shard, name, split, context)
    raise InputError(f"{name}: expected a tar of samples, or a table with images")


def _shards(folder: Path) -> list[tuple[Path, str]]:
    """Return the shards of a folder with their splits; none if it has anything else."""
    own, inner = _listed(folder)
    if own is None or (own and inner):
        return []
    if own:
        return [(file, shard_split(file.name)) for file in own]
    found: list[tuple[Path, str]] = []
    for one in inner:
        split = split_of_name(one.name)
        below, deeper = _listed(one)
        if not below or deeper or (split is None and (one.name != "data" or len(inner) > 1)):
            return []
        found += [(file, split or shard_split(file.name)) for file in below]
    return found


def _listed(folder: Path) -> tuple[list[Path] | None, list[Path]]:
    """Return the shards and the subfolders of a folder; None for the shards if it has images."""
    own: list[Path] = []
    inner: list[Path] = []
    for entry in scan(os.fspath(folder)):
        if is_system_file(entry.name):
            continue
        if is_folder(entry):
            inner.append(Path(entry.path))
        elif has_image_suffix(entry.name):
            return None, []
        elif entry.name.lower().endswith(SHARD_SUFFIXES):
            own.append(Path(entry.path))
    return own, inner
