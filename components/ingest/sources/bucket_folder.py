"""A folder in a bucket: its names are listed once, and its images are read by the workers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from components.ingest.sources.archives import member_parts
from components.ingest.sources.download_retry import Deadline
from components.ingest.sources.folders import LabeledFile
from components.ingest.sources.object_store import copy_object, list_objects
from components.ingest.sources.transfer_progress import limited
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.images.file_types import has_image_suffix

# What a URL would not keep of an object's name.
_NOT_IN_URLS = re.compile(r"[?#]|::")


def copy_names(url: str, folder: Path, options: IngestOptions) -> None:
    """Give `folder` the names of all objects below a URL, so that its form can be found.

    Images become empty files. Other objects, such as tables and archives, are copied, because they
    may say what the images are.

    Raises:
        InputError: the store does not respond, a name is not safe, or all objects have more bytes
            than the options allow.
    """
    deadline, done = Deadline(options.download_deadline_s), 0
    for found in list_objects(url, options, deadline):
        target = folder.joinpath(*member_parts(found.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        advance = limited(lambda *_: None, options.max_download_bytes, done)
        if has_image_suffix(found.name) and _has_url(found.name, found.path):
            advance(found.size, found.size)
            target.touch()
        else:
            copy_object(url, found.path, target, options, deadline, advance)
        done += found.size


def with_urls(files: Iterable[LabeledFile], url: str, folder: Path) -> Iterator[LabeledFile]:
    """Yield the files of a folder of `copy_names`; those that are empty as URLs of the bucket."""
    # Annotations name their files by absolute paths, whatever the folder is.
    start = f"{os.path.abspath(folder)}{os.sep}"
    for file in files:
        path = os.path.abspath(file.file)
        if path.startswith(start) and has_image_suffix(path) and _is_empty(path):
            name = path.removeprefix(start).replace(os.sep, "/")
            yield file._replace(file=f"{url.rstrip('/')}/{name}")
        else:
            yield file


def _is_empty(path: str) -> bool:
    """Return whether a file has no bytes; one that cannot be found is left to its reader."""
    try:
        return not Path(path).stat().st_size
    except OSError:
        return False


def _has_url(name: str, path: str) -> bool:
    """Return whether the URL of a name is that of the object at this path of a bucket."""
    return path.endswith(f"/{name}") and f"//{name}" not in path and not _NOT_IN_URLS.search(name)
