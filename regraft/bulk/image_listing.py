"""The images of files, folders and buckets, listed one by one in an order that does not change."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from components.ingest.sources.download_retry import Deadline
from components.ingest.sources.folder_listing import scan
from components.ingest.sources.object_store import is_object, list_objects
from regraft_client.image_files import is_image_file, is_system_path
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.images.file_types import has_image_suffix
from regraft_core.runtime.addresses import is_http, is_remote, local_path, refuse_credentials
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import open_store_uri


class ListedImage(NamedTuple):
    """An image: its path or URI, and its bytes."""

    name: str
    size: int


def list_images(sources: Sequence[str]) -> Iterator[ListedImage]:
    """Yield the given images, and those below the given folders and URIs, sorted by name in each.

    An object of a bucket is an image by its name; a file also by its first bytes. Folders are read
    as images are taken; the names in a bucket are listed at once.

    Raises:
        InputError: a source does not exist or is not a file, a folder or a bucket (at once), or a
            folder cannot be read.
    """
    return itertools.chain.from_iterable([_reader(source) for source in sources])


def _reader(source: str) -> Iterator[ListedImage]:
    """Return the images of one source, which exists."""
    if is_http(source):
        raise InputError(f"expected an image, a folder or a bucket such as s3://, got {source}")
    if is_remote(source):
        refuse_credentials("images", source)
        options = IngestOptions()
        if is_object(source, options):
            store, name = open_store_uri(source)
            return iter([ListedImage(source, int(store.info(name)["size"] or 0))])
        return _in_bucket(source, options)
    path = local_path(source)
    if path.is_file():
        return iter([ListedImage(str(path), path.stat().st_size)])
    if path.is_dir():
        return _below(path)
    raise InputError(f"expected an image or a folder, got {source}")


def _below(folder: Path) -> Iterator[ListedImage]:
    """Yield the images below a folder; linked folders are not entered."""
    for entry in scan(str(folder)):
        if is_system_path(Path(entry.name)):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path))
        elif is_image_file(Path(entry.path)):
            yield ListedImage(os.path.join(folder, entry.name), entry.stat().st_size)  # noqa: PTH118


def _in_bucket(uri: str, options: IngestOptions) -> Iterator[ListedImage]:
    _, base = open_store_uri(uri)
    for found in list_objects(uri, options, Deadline(options.download_deadline_s)):
        if has_image_suffix(found.name) and not is_system_path(Path(found.name)):
            # As in the bucket: a name may have several slashes in a row.
            yield ListedImage(uri.rstrip("/") + found.path.removeprefix(base), found.size)
