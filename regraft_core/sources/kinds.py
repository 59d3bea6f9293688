"""The kinds of sources, such as folder, file, pattern of shards, URL or sample."""

from __future__ import annotations

import re
from typing import Literal

from regraft_core.runtime.addresses import is_http, is_remote, local_path
from regraft_core.runtime.errors import InputError, unknown_name
from regraft_core.sources.shard_patterns import shards_of

SAMPLE_NAMES = ("sample:digits", "sample:fashion-mnist")
DRIVE_PREFIX = "gdrive:"
SourceKind = Literal["sample", "folder", "file", "shards", "drive", "http", "object_store"]


def kind_of_source(source: str) -> SourceKind:
    """Return how a source is read.

    Raises:
        InputError: nothing fits; near names are suggested.
    """
    path = local_path(source)
    if source in SAMPLE_NAMES:
        return "sample"
    if path.is_dir():
        return "folder"
    if path.is_file():
        return "file"
    if shards := shards_of(source):
        kind_of_source(shards[0])
        return "shards"
    if drive_id(source):
        return "drive"
    if is_http(source):
        return "http"
    if is_remote(source):
        return "object_store"
    known = list(SAMPLE_NAMES)
    if path.parent.is_dir() and ":" not in source:
        known += [str(near) for near in path.parent.iterdir() if not near.name.startswith(".")]
    raise unknown_name("source", source, known)


def drive_id(source: str) -> str:
    """Return the file id in `gdrive:ID`, in a Google Drive link or in a bare id; otherwise "".

    Raises:
        InputError: it is a link to Drive, but not to a file.
    """
    if source.startswith(DRIVE_PREFIX):
        return source.removeprefix(DRIVE_PREFIX)
    if re.fullmatch(r"(?=.*\d)[A-Za-z0-9_-]{25,64}", source):
        return source
    if not re.match(r"https?://(drive|docs)\.google\.com/", source):
        return ""
    from gdown.parse_url import parse_url

    identity, _ = parse_url(url=source)
    if not identity or "/folders/" in source:
        raise InputError(f"expected a Google Drive link to a file, got {source.split('?')[0]}")
    return str(identity)
