"""The images of files, folders and buckets, listed one by one in an order that does not change."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from components.ingest.sources.download_retry import Deadline, FetchError
from components.ingest.sources.folder_listing import scan
from components.ingest.sources.object_store import find_object, list_objects
from regraft_client.image_files import is_image_file, is_system_path
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.images.file_types import has_image_suffix
from regraft_core.runtime.addresses import (
    is_http,
    is_remote,
    local_path,
    redact,
    refuse_credentials,
)
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import open_store_uri


class ListedImage(NamedTuple):
    """An image: its path or URI, its bytes, and what changes with its content.

    The version is the time of the last change of a file, and of an object what its store reports.
    """

    name: str
    size: int
    version: str


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
        with _named(source):
            found = find_object(source, options)
        if found:
            return iter([ListedImage(source, found.size, found.version)])
        return _in_bucket(source, options)
    path = local_path(source)
    if path.is_file():
        return iter([_file(str(path), path.stat())])
    if path.is_dir():
        return _below(path)
    raise InputError(f"expected an image or a folder, got {source}")


def _below(folder: Path) -> Iterator[ListedImage]:
    """Yield the images below a folder; linked folders are not entered, and lost files left out."""
    for entry in scan(str(folder)):
        if is_system_path(Path(entry.name)):
            continue
        if entry.is_dir(follow_symlinks=False) and Path(entry.path).is_dir():
            yield from _below(Path(entry.path))
        elif is_image_file(Path(entry.path)):
            with contextlib.suppress(FileNotFoundError):
                yield _file(os.path.join(folder, entry.name), entry.stat())  # noqa: PTH118


def _file(name: str, found: os.stat_result) -> ListedImage:
    return ListedImage(name, found.st_size, str(found.st_mtime_ns))


def _in_bucket(uri: str, options: IngestOptions) -> Iterator[ListedImage]:
    _, base = open_store_uri(uri)
    with _named(uri):
        objects = [*list_objects(uri, options, Deadline(options.download_deadline_s))]
    for found in objects:
        if has_image_suffix(found.name) and not is_system_path(Path(found.name)):
            # As in the bucket: a name may have several slashes in a row.
            name = uri.rstrip("/") + found.path.removeprefix(base)
            yield ListedImage(name, found.size, found.version)


@contextlib.contextmanager
def _named(uri: str) -> Iterator[None]:
    """Add the URI to the message of a request that failed."""
    try:
        yield
    except FetchError as error:
        raise type(error)(f"{redact(uri)}: {error}") from error
