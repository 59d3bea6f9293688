"""Archives and tables from the network: mirrors, checksum, and a cache by digest.

The cache folder holds `files/<sha256>` (whole files only, renamed into place), `addresses/<key>`
(which file an address gave last) and `partial/<key>/` (what a later try goes on from).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from components.ingest.sources.download_retry import (
    Deadline,
    FetchError,
    refuse_page,
    shown,
    with_retries,
)
from components.ingest.sources.drive import download_drive, drive_id
from components.ingest.sources.http import NotModifiedError, Validator, discard, download
from components.ingest.sources.object_store import download_object
from components.ingest.sources.transfer_progress import transfer_progress
from regraft_core.formats.manifest_storage import digest_file, write_text
from regraft_core.formats.options import IngestOptions
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.step import log_progress


def download_cached(source: str, options: IngestOptions) -> Path:
    """Return the file that an address, or else one of the mirrors, gives; from the cache if there.

    Raises:
        InputError: no address gives the file with the checksum that is expected.
    """
    cache = Path(options.download_cache).expanduser()
    wanted = options.sha256.lower()
    kept = cache / "files" / wanted
    if wanted and kept.is_file():
        if digest_file(kept) == wanted:
            return kept
        kept.unlink()
    deadline = Deadline(options.download_deadline_s)
    failures = []
    for address in (source, *options.mirrors):
        try:
            return _obtain_one(address, cache, options, deadline)
        except FetchError as error:
            failures.append(f"{shown(address)}: {error}")
            log_progress(f"ingest: {failures[-1]}")
    raise FetchError("; ".join(failures))


def _obtain_one(address: str, cache: Path, options: IngestOptions, deadline: Deadline) -> Path:
    if "://" not in address and not drive_id(address):
        return _local(Path(address), options)
    key = hashlib.sha256(address.encode()).hexdigest()[:32]
    record = cache / "addresses" / f"{key}.json"
    known, file = _recall(record, cache)
    with _partial_folder(cache / "partial", key) as folder:
        part = folder / "file"
        try:
            validator = _fetch(address, part, options, deadline, known)
        except NotModifiedError:
            assert file is not None
            return file
        digest = digest_file(part)
        if options.sha256 and digest != options.sha256.lower():
            discard(part)
            raise FetchError(f"expected SHA-256 {options.sha256.lower()}, received {digest}")
        target = cache / "files" / digest
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)
        discard(part)
        record.parent.mkdir(parents=True, exist_ok=True)
        values = {"sha256": digest, "etag": validator.etag, "modified": validator.modified}
        write_text(record, json.dumps(values))
    return target


def _fetch(
    address: str, part: Path, options: IngestOptions, deadline: Deadline, known: Validator | None
) -> Validator:
    """Complete `part` in as many tries as the options allow."""
    identity = drive_id(address)
    with transfer_progress(shown(address)) as advance:

        def once() -> Validator:
            if identity:
                download_drive(identity, part, options, deadline, advance)
            elif address.startswith(("http://", "https://")):
                return download(address, part, options, deadline, advance, known)
            else:
                download_object(address, part, deadline, advance)
                refuse_page(part)
            return Validator()

        return with_retries(once, options, deadline)


def _local(path: Path, options: IngestOptions) -> Path:
    """Return a local file (a source or a mirror), with the checksum that is expected."""
    if not path.is_file():
        raise FetchError("no such file")
    if options.sha256 and (digest := digest_file(path)) != options.sha256.lower():
        raise FetchError(f"expected SHA-256 {options.sha256.lower()}, found {digest}")
    return path


def _recall(record: Path, cache: Path) -> tuple[Validator | None, Path | None]:
    """Return the version that an address gave last, and its file, if both are still there."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        values = json.loads(record.read_text(encoding="utf-8"))
        file = cache / "files" / values["sha256"]
        if file.is_file() and digest_file(file) == values["sha256"]:
            return Validator(values["etag"], values["modified"]), file
    return None, None


@contextlib.contextmanager
def _partial_folder(partial: Path, key: str) -> Iterator[Path]:
    """Yield the folder of an address's partial file; another one while a process is in it."""
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to the cache {partial}: {error.strerror}") from error
    with open(partial / f"{key}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = partial / key
        except BlockingIOError:
            folder = partial / f"{key}-{os.getpid()}"
        folder.mkdir(exist_ok=True)
        yield folder
        with contextlib.suppress(OSError):
            folder.rmdir()
