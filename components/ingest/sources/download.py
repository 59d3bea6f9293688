"""Files from the network: mirrors, a checksum, and a cache by digest.

The cache folder has `files/<sha256>` (complete files only, renamed into place), `urls/<key>.json`
(the last file of each URL) and `partial/<key>/` (what a later attempt resumes).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from components.ingest.sources.download_retry import (
    Deadline,
    FetchError,
    TransientError,
    UnreachableError,
    with_retries,
)
from components.ingest.sources.drive import download_drive
from components.ingest.sources.html_pages import refuse_page_file
from components.ingest.sources.http import (
    NotModifiedError,
    Validator,
    discard,
    download,
    read_http,
)
from components.ingest.sources.object_store import download_object, read_object
from components.ingest.sources.transfer_progress import (
    DownloadSizeError,
    limited,
    transfer_progress,
)
from regraft_core.formats.manifest_storage import digest_file, write_text
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.addresses import is_http, is_remote, local_path, redact
from regraft_core.runtime.errors import UnavailableError
from regraft_core.runtime.safe_files import lock_file
from regraft_core.runtime.step_reports import log_progress
from regraft_core.sources.kinds import drive_id


def download_cached(source: str, options: IngestOptions) -> Path:
    """Return the file of a URL, or of the first mirror that provides it; from the cache if there.

    Raises:
        InputError: no URL provides a file with the expected checksum.
    """
    cache = Path(options.download_cache).expanduser()
    expected = options.sha256.lower()
    cached = cache / "files" / expected
    if expected and cached.is_file():
        if digest_file(cached) == expected:
            return cached
        cached.unlink()
    deadline = Deadline(options.download_deadline_s)
    failures, kind = [], FetchError
    for url in (source, *options.mirrors):
        try:
            return _download_one(url, cache, options, deadline)
        except FetchError as error:
            failures.append(f"{redact(url)}: {error}")
            kind = UnreachableError if isinstance(error, UnreachableError) else kind
            log_progress(f"ingest: {failures[-1]}")
    raise kind("; ".join(failures))


def read_url(
    url: str, options: IngestOptions, limit_bytes: int, table: str = "",
    repeated: Callable[[], None] = lambda: None,
) -> bytes:  # fmt: skip
    """Return the content of a small file, such as one image of a table; it is not cached.

    Args:
        url: of the file.
        options: for the timeouts and retries.
        limit_bytes: maximum size.
        table: URL of the remote table that names the file, if one does; then the file is not read
            from this machine, except from the table's own server.
        repeated: called before each attempt after the first.

    Raises:
        FetchError: it cannot be downloaded.
        DownloadSizeError: it exceeds `limit_bytes`.
    """
    deadline = Deadline(options.download_deadline_s)

    def attempt() -> bytes:
        if is_http(url):
            return read_http(url, limit_bytes, options, deadline, table)
        return read_object(url, limit_bytes)

    return with_retries(attempt, options, deadline, repeated)


def _download_one(url: str, cache: Path, options: IngestOptions, deadline: Deadline) -> Path:
    if not is_remote(url) and not drive_id(url):
        return _local_file(local_path(url), options)
    key = hashlib.sha256(url.encode()).hexdigest()[:32]
    record = cache / "urls" / f"{key}.json"
    known, cached = _cached_version(record, cache)
    with _partial_folder(cache / "partial", key) as folder:
        part = folder / "file"
        try:
            validator = _complete(part, url, options, deadline, known)
        except NotModifiedError:
            assert cached is not None
            if options.sha256 and cached.name != options.sha256.lower():
                raise FetchError(
                    f"expected SHA-256 {options.sha256.lower()}, received {cached.name}"
                ) from None
            return cached
        digest = digest_file(part)
        if options.sha256 and digest != options.sha256.lower():
            discard(part)
            raise FetchError(f"expected SHA-256 {options.sha256.lower()}, received {digest}")
        target = cache / "files" / digest
        _make_private(target.parent)
        os.replace(part, target)
        discard(part)
        _make_private(record.parent)
        values = {"sha256": digest, "etag": validator.etag, "modified": validator.modified}
        write_text(record, json.dumps(values))
    return target


def _complete(
    part: Path, url: str, options: IngestOptions, deadline: Deadline, known: Validator | None
) -> Validator:
    """Complete a partial file; return the version that the server sent, if it named one."""
    identity = drive_id(url)
    with transfer_progress(redact(url)) as show:
        advance = limited(show, options.max_download_bytes)

        def attempt() -> Validator:
            validator = Validator()
            if identity:
                download_drive(identity, part, options, deadline, advance)
            elif is_http(url):
                validator = download(url, part, options, deadline, advance, known)
            else:
                download_object(url, part, deadline, advance)
            try:
                refuse_page_file(part)
            except (FetchError, TransientError):
                # The next attempt must not take a page for the start of the file.
                discard(part)
                raise
            return validator

        try:
            return with_retries(attempt, options, deadline)
        except DownloadSizeError:
            discard(part)
            raise


def _local_file(path: Path, options: IngestOptions) -> Path:
    """Return a mirror that is a local file, if it has the expected checksum."""
    if not path.is_file():
        raise FetchError("no such file")
    if options.sha256 and (digest := digest_file(path)) != options.sha256.lower():
        raise FetchError(f"expected SHA-256 {options.sha256.lower()}, found {digest}")
    return path


def _cached_version(record: Path, cache: Path) -> tuple[Validator | None, Path | None]:
    """Return the last version of a URL and its file, if both are in the cache."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        values = json.loads(record.read_text(encoding="utf-8"))
        file = cache / "files" / values["sha256"]
        if file.is_file() and digest_file(file) == values["sha256"]:
            return Validator(values["etag"], values["modified"]), file
    return None, None


def _make_private(folder: Path) -> None:
    """Make a folder of the cache, which other users of this machine cannot read."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


@contextlib.contextmanager
def _partial_folder(partial: Path, key: str) -> Iterator[Path]:
    """Yield the folder of a URL's partial file; another one if a process uses it already."""
    try:
        _make_private(partial)
    except OSError as error:
        raise UnavailableError(f"cannot write to the cache {partial}: {error.strerror}") from error
    with lock_file(partial / f"{key}.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = partial / key
        except BlockingIOError:
            folder = partial / f"{key}-{os.getpid()}"
        folder.mkdir(exist_ok=True)
        yield folder
        with contextlib.suppress(OSError):
            folder.rmdir()
