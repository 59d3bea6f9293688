"""The forms of data that a folder may have, other than class folders."""

from __future__ import annotations

from pathlib import Path

from components.ingest.sources.coco import coco_files, coco_folder_images
from components.ingest.sources.folder_listing import is_folder, scan
from components.ingest.sources.hugging_face import has_metadata, metadata_images
from components.ingest.sources.pascal_voc import is_voc, voc_images
from components.ingest.sources.shard_folders import has_shards, shard_folder_images
from components.ingest.sources.source_context import FolderReader
from components.ingest.sources.system_files import is_system_file
from components.ingest.sources.tfds import is_tfds, tfds_images

_MAX_DEPTH = 8


def find_form(folder: Path) -> tuple[Path, FolderReader] | None:
    """Return the folder of a form of data and its reader; None for class folders.

    Folders that contain nothing but one folder are passed through, as archives often have some.

    Raises:
        InputError: the folder or a metadata file cannot be read.
    """
    for _ in range(_MAX_DEPTH):
        if is_tfds(folder):
            return folder, tfds_images
        if is_voc(folder):
            return folder, voc_images
        if coco_files(folder):
            return folder, coco_folder_images
        if has_metadata(folder):
            return folder, metadata_images
        if has_shards(folder):
            return folder, shard_folder_images
        entries = [one for one in scan(str(folder)) if not is_system_file(one.name)]
        if len(entries) != 1 or not is_folder(entries[0]):
            return None
        folder = folder / entries[0].name
    return None
