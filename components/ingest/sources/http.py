"""Downloads over http(s) that resume, with every wait bounded."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import requests
import urllib3

from components.ingest.sources.download_retry import (
    Deadline,
    FetchError,
    TransientError,
    refuse_html,
    refuse_page,
    with_retries,
)
from components.ingest.sources.transfer_progress import Advance
from regraft_core.formats.manifest_storage import write_text
from regraft_core.formats.options import IngestOptions

_BLOCK = 64 * 1024
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_HOPELESS = (
    requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema, requests.exceptions.TooManyRedirects,
    requests.exceptions.SSLError,
)  # fmt: skip


@dataclass(frozen=True)
class Validator:
    """How a server names one version of a file."""

    etag: str = ""
    modified: str = ""

    @property
    def strong(self) -> str:
        """What proves that two answers are of the same bytes; empty if nothing does."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


class NotModifiedError(Exception):
    """The server says that the kept version is still the current one."""


def download(
    url: str, part: Path, options: IngestOptions, deadline: Deadline, advance: Advance,
    known: Validator | None = None,
) -> Validator:  # fmt: skip
    """Make one try to complete `part`; what came is kept for the next.

    Args:
        url: http or https.
        part: the file to complete; `<part>.json` keeps the version that it is of.
        options: for the time-outs.
        deadline: of the whole download.
        advance: told of the progress.
        known: the version that is in the cache already.

    Raises:
        TransientError: another try may succeed.
        FetchError: none will.
        NotModifiedError: the version is still `known`.
    """
    notes = part.with_name(part.name + ".json")
    kept = _kept(part, notes)
    have = part.stat().st_size if kept else 0
    headers = {"Accept-Encoding": "identity"}
    if kept and have:
        headers |= {"Range": f"bytes={have}-", "If-Range": kept.strong}
    elif known and known.etag:
        headers["If-None-Match"] = known.etag
    elif known and known.modified:
        headers["If-Modified-Since"] = known.modified
    timeout = (
        min(10.0, options.download_timeout_s),
        min(options.download_timeout_s, max(deadline.left, 0.01)),
    )
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as answer:
            start = _start(answer, have, part)
            validator = Validator(
                answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
            )
            write_text(notes, json.dumps(asdict(validator)))
            total = _total(answer, start)
            size = _copy(answer, part, start, total, deadline, advance)
    except _HOPELESS as error:
        raise FetchError(f"cannot be asked: {type(error).__name__}") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise TransientError(_reason(error, options)) from error
    if total is not None and size != total:
        raise TransientError(f"truncated: expected {total} bytes, received {size}")
    try:
        refuse_page(part)
    except (FetchError, TransientError):
        # A page must not be taken for the start of the file by the next try.
        discard(part)
        raise
    return validator


def read_address(url: str, options: IngestOptions, limit: int) -> bytes:
    """Return what a small file at an address holds.

    Raises:
        FetchError: it cannot be had, or is more than `limit` bytes.
    """
    deadline = Deadline(options.download_deadline_s)
    timeout = (min(10.0, options.download_timeout_s), options.download_timeout_s)

    def once() -> bytes:
        try:
            with requests.get(url, stream=True, timeout=timeout) as answer:
                if answer.status_code != 200:
                    _refuse_status(answer)
                total = _total(answer, 0)
                data = bytearray()
                while block := answer.raw.read1(_BLOCK, decode_content=True):
                    data += block
                    deadline.check()
                    if len(data) > limit:
                        raise FetchError(f"more than {limit} bytes")
        except _HOPELESS as error:
            raise FetchError(f"cannot be asked: {type(error).__name__}") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise TransientError(_reason(error, options)) from error
        if total is not None and not answer.headers.get("Content-Encoding") and len(data) != total:
            raise TransientError(f"truncated: expected {total} bytes, received {len(data)}")
        return bytes(data)

    return with_retries(once, options, deadline)


def discard(part: Path) -> None:
    """Remove a partial file and its notes."""
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".json").unlink(missing_ok=True)


def _kept(part: Path, notes: Path) -> Validator | None:
    """Return the version of the partial file, None where it cannot be resumed safely."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        kept = Validator(**json.loads(notes.read_text(encoding="utf-8")))
        if kept.strong and part.is_file():
            return kept
    return None


def _start(answer: requests.Response, have: int, part: Path) -> int:
    """Return where the answer's bytes belong; refuse answers that have none for us."""
    status = answer.status_code
    if status == 200:
        return 0
    if status == 206:
        span = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        if span and int(span.group(1)) == have:
            return have
        discard(part)
        raise TransientError("the server answered with another range than was asked for")
    if status == 304:
        raise NotModifiedError
    if status == 416:
        discard(part)
        raise TransientError("the server refused to resume")
    return _refuse_status(answer)


def _refuse_status(answer: requests.Response) -> NoReturn:
    """Say of a status that is no success whether it may pass."""
    status = answer.status_code
    if status in _RETRIED:
        wait = answer.headers.get("Retry-After", "")
        raise TransientError(f"HTTP {status} {answer.reason}", float(wait) if wait.isdigit() else 0)
    if status in (401, 403, 404, 410):
        refuse_html("", answer.url, status)
    raise FetchError(f"HTTP {status} {answer.reason}")


def _total(answer: requests.Response, start: int) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _copy(
    answer: requests.Response, part: Path, start: int, total: int | None, deadline: Deadline,
    advance: Advance,
) -> int:  # fmt: skip
    """Write the body as it comes, so that a break loses little; return the file's size."""
    with open(part, "r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        # read1 returns with what one packet brought; read would wait for a full block, and
        # let a server that drips bytes hold us beyond the deadline.
        while block := answer.raw.read1(_BLOCK, decode_content=False):
            file.write(block)
            advance(file.tell(), total)
            deadline.check()
        return file.tell()


def _reason(error: Exception, options: IngestOptions) -> str:
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return f"no answer within {options.download_timeout_s:g} s"
    if isinstance(error, requests.ConnectionError):
        return "cannot connect"
    return "truncated: the connection broke"
