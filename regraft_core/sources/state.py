"""The state of a source: a short text that changes if the source changes.

Steps are cached by their parameters, and a source can change without its name. The state is cheap:
a listing with sizes and times, or the response of a server. Only ingest reads the content.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regraft_core.formats.manifest_storage import digest_of
from regraft_core.runtime.addresses import local_path, redact, with_variables
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import open_store_uri
from regraft_core.runtime.version import VERSION
from regraft_core.sources.kinds import kind_of_source
from regraft_core.sources.shard_patterns import shards_of

TIMEOUT_S = 20.0
_REFUSALS = {401: "no permission", 403: "no permission", 404: "not found", 410: "gone"}


def source_state(source: str, sha256: str = "") -> str:
    """Return the state of a source; `sha256` identifies the content of an archive.

    A source without a version gets a new state each time.

    Raises:
        InputError: there is no such source, or no permission to read it.
    """
    kind = kind_of_source(source)
    if kind == "sample":
        return f"{source} {VERSION}"
    if kind == "folder":
        return listing_digest(local_path(source))
    if kind == "file":
        found = local_path(source).stat()
        return sha256 or f"{found.st_size} {found.st_mtime_ns}"
    if kind == "shards":
        return digest_of([source_state(shard) for shard in shards_of(source)])
    if kind == "http":
        state = _http_state(with_variables("source", source))
        return sha256 or state
    if kind == "object_store":
        return _object_store_state(with_variables("source", source))
    return sha256 or secrets.token_hex(8)  # Drive shows no version without a login


def listing_digest(folder: Path) -> str:
    """Return the SHA-256 (hex) of a folder's files: relative paths, sizes and times of change."""
    digest = hashlib.sha256()
    for line in sorted(_listed(folder, "")):
        digest.update(line)
    return digest.hexdigest()


def _listed(folder: Path, prefix: str) -> Iterator[bytes]:
    """Yield a line for each file; links are followed, once for each folder that is open."""
    pending = [(os.fspath(folder), prefix, frozenset({os.path.realpath(folder)}))]
    while pending:
        path, inside, above = pending.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                name = f"{inside}{entry.name}"
                try:
                    if entry.is_dir():
                        real = os.path.realpath(entry.path)
                        if real not in above:
                            pending.append((entry.path, f"{name}/", above | {real}))
                        continue
                    found = entry.stat()
                except OSError:
                    yield os.fsencode(f"{name}\0unreadable\n")
                    continue
                yield os.fsencode(f"{name}\0{found.st_size} {found.st_mtime_ns}\n")


def _http_state(url: str) -> str:
    """Request a file's validators, by HEAD or, if that is refused, by a GET without its body."""
    import requests

    shown = redact(url)
    try:
        for method in ("HEAD", "GET"):
            with requests.request(
                method, url, timeout=TIMEOUT_S, allow_redirects=True, stream=True
            ) as response:
                if response.ok:
                    return _validators(response)
                status = response.status_code
            if status in (404, 410):
                break
    except requests.RequestException:
        return secrets.token_hex(8)  # ingest retries longer, and uses the mirrors
    if status in _REFUSALS:
        raise InputError(f"source: {shown}: {_REFUSALS[status]} (HTTP {status})")
    return secrets.token_hex(8)


def _validators(response: Any) -> str:
    headers = response.headers
    known = [headers.get(name, "") for name in ("ETag", "Last-Modified", "Content-Length")]
    return digest_of(known) if known[0] or known[1] else secrets.token_hex(8)


def _object_store_state(url: str) -> str:
    store, path = open_store_uri(url)
    try:
        store.invalidate_cache()
        found = store.find(path, detail=True)
    except PermissionError as error:
        raise InputError(f"source: {redact(url)}: no permission ({error})") from error
    except Exception as error:
        # Each store raises the errors of its own library.
        line = " ".join(str(error).split())[:200]
        raise InputError(f"source: {redact(url)}: {type(error).__name__}: {line}") from error
    if not found:
        raise InputError(f"source: expected files at {redact(url)}, found none")
    lines = [[name, info.get("size"), str(info.get("ETag") or info.get("etag") or
              info.get("md5Hash") or info.get("mtime") or info.get("updated"))]
             for name, info in sorted(found.items())]  # fmt: skip
    return digest_of(lines)
