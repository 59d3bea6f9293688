"""Resumable downloads over HTTP, with every wait bounded; each function makes one attempt.

They are written on requests because neither its retries nor gdown's downloads check that a partial
file is of the version that the server has now, or stop a server that sends a byte at a time.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import requests
import urllib3

from components.ingest.sources.download_retry import Deadline, FetchError, TransientError
from components.ingest.sources.html_pages import refuse_page
from components.ingest.sources.remote_hosts import RefusedHostError, limited_session
from components.ingest.sources.transfer_progress import Advance, DownloadSizeError
from regraft_core.formats.manifest_storage import write_text
from regraft_core.formats.options.ingest import IngestOptions

_BLOCK_BYTES = 64 * 1024
_CONNECT_TIMEOUT_S = 10.0
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_PERMANENT = (
    requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema, requests.exceptions.TooManyRedirects,
    requests.exceptions.SSLError,
)  # fmt: skip


@dataclass(frozen=True)
class Validator:
    """The headers by which a server identifies one version of a file."""

    etag: str = ""
    modified: str = ""

    @property
    def strong(self) -> str:
        """The value that identifies the bytes; empty if there is none."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


class NotModifiedError(Exception):
    """The server still has the version that is in the cache."""


def timeouts_s(options: IngestOptions, deadline: Deadline) -> tuple[float, float]:
    """Return the timeouts of a connection and of a read."""
    read_s = min(options.download_timeout_s, max(deadline.left_s, 0.01))
    return min(_CONNECT_TIMEOUT_S, options.download_timeout_s), read_s


@contextlib.contextmanager
def open_response(
    url: str, options: IngestOptions, deadline: Deadline, headers: Mapping[str, str] | None = None,
    table: str = "",
) -> Iterator[requests.Response]:  # fmt: skip
    """Send a GET request; yield the response, whatever its status, before its body is read.

    With `table`, the URL of a remote table, the request is not sent to this machine or its links.

    Raises:
        TransientError: the connection failed, in the body of the `with` statement too.
        FetchError: no request can be sent to the URL.
    """
    timeouts = timeouts_s(options, deadline)
    try:
        with (
            limited_session(table) if table else requests.Session() as session,
            session.get(url, headers=headers, stream=True, timeout=timeouts) as response,
        ):
            yield response
    except RefusedHostError as error:
        raise FetchError(str(error)) from error
    except _PERMANENT as error:
        raise FetchError(f"the request failed: {type(error).__name__}") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise TransientError(_describe(error, options)) from error


def _describe(error: Exception, options: IngestOptions) -> str:
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return f"no response within {options.download_timeout_s:g} s"
    if isinstance(error, requests.ConnectionError):
        return "cannot connect"
    return "truncated: the connection broke"


def download(
    url: str, part: Path, options: IngestOptions, deadline: Deadline, advance: Advance,
    known: Validator | None = None,
) -> Validator:  # fmt: skip
    """Complete the file `part`; what is received before an error is kept for the next attempt.

    Args:
        url: http or https.
        part: the file to complete; `<part>.json` keeps the version that it is of.
        options: for the timeouts.
        deadline: of the whole download.
        advance: called with the progress.
        known: the version that is in the cache already.

    Raises:
        TransientError: another attempt may succeed.
        FetchError: no other attempt will.
        NotModifiedError: the server still has the version `known`.
    """
    partial = _partial_version(part)
    size = part.stat().st_size if partial else 0
    headers = {"Accept-Encoding": "identity"}
    if partial and size:
        headers |= {"Range": f"bytes={size}-", "If-Range": partial.strong}
    elif known and known.etag:
        headers["If-None-Match"] = known.etag
    elif known and known.modified:
        headers["If-Modified-Since"] = known.modified
    with open_response(url, options, deadline, headers) as response:
        start = _body_start(response, size, part)
        received = response.headers
        validator = Validator(received.get("ETag", ""), received.get("Last-Modified", ""))
        write_text(_version_file(part), json.dumps(asdict(validator)))
        length = received.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        with open(part, "r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            for block in _blocks(response, deadline, decode=False):
                file.write(block)
                advance(file.tell(), total)
    return validator


class HttpBlocks:
    """One version of a file, read in blocks from any position by a request each.

    Attributes:
        size: of the file; None before the first block, and if the server does not report it.
    """

    def __init__(self, url: str, options: IngestOptions, deadline: Deadline) -> None:
        self.size: int | None = None
        self._url, self._options, self._deadline = url, options, deadline
        self._version = Validator()

    def read_from(self, start: int) -> Generator[bytes, None, None]:
        """Yield the blocks of the file after its first `start` bytes.

        A server without ranges sends all of them again; they are skipped.

        Raises:
            TransientError: another attempt may succeed.
            FetchError: no other attempt will, or the file is not of the version that was read.
        """
        headers = {"Accept-Encoding": "identity"}
        if start:
            if not self._version.strong:
                raise FetchError("the connection broke, and the server names no version of the "
                                 "file by which to continue; download it first")  # fmt: skip
            headers |= {"Range": f"bytes={start}-", "If-Range": self._version.strong}
        with open_response(self._url, self._options, self._deadline, headers) as response:
            skipped = self._skipped_bytes(response, start)
            for block in _blocks(response, self._deadline, decode=False):
                if skipped < len(block):
                    yield block[skipped:]
                skipped = max(0, skipped - len(block))

    def close(self) -> None:
        """Do nothing: the generators of blocks close their connections."""

    def _skipped_bytes(self, response: requests.Response, start: int) -> int:
        """Return how many bytes of the body were read before; note the version and the size."""
        status, received = response.status_code, response.headers
        if start and status == 206:
            if not received.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise TransientError("the server sent another range than requested")
            return 0
        if status != 200 and not (start and status == 416):
            _refuse_status(response)
        version = Validator(received.get("ETag", ""), received.get("Last-Modified", ""))
        if start and (status == 416 or version.strong != self._version.strong):
            raise FetchError("the file changed while it was read")
        length = received.get("Content-Length", "")
        self._version, self.size = version, int(length) if length.isdecimal() else None
        return start


def read_http(
    url: str, limit_bytes: int, options: IngestOptions, deadline: Deadline, table: str = ""
) -> bytes:
    """Return the content of a small file; `table` as in `read_url`.

    Raises:
        TransientError: another attempt may succeed.
        FetchError: no other attempt will.
        DownloadSizeError: the content exceeds `limit_bytes`.
    """
    with open_response(url, options, deadline, table=table) as response:
        if response.status_code != 200:
            _refuse_status(response)
        data = bytearray()
        for block in _blocks(response, deadline, decode=True):
            data += block
            if len(data) > limit_bytes:
                raise DownloadSizeError(f"expected at most {limit_bytes} bytes, received more")
    return bytes(data)


def discard(part: Path) -> None:
    """Remove a partial file and the version that it is of."""
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def _version_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _partial_version(part: Path) -> Validator | None:
    """Return the version of a partial file; None if it cannot be resumed safely."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        version = Validator(**json.loads(_version_file(part).read_text(encoding="utf-8")))
        if version.strong and part.is_file():
            return version
    return None


def _blocks(response: requests.Response, deadline: Deadline, *, decode: bool) -> Iterator[bytes]:
    """Yield the body as it arrives; urllib3 raises if it is shorter than its announced length."""
    # read1 returns the bytes of one packet. read waits for a full block, so a server that sends
    # a byte at a time could exceed the deadline.
    while block := response.raw.read1(_BLOCK_BYTES, decode_content=decode):
        yield block
        deadline.check()


def _body_start(response: requests.Response, size: int, part: Path) -> int:
    """Return the position in the file at which the body starts; refuse other responses."""
    status = response.status_code
    if status == 200:
        return 0
    if status == 206:
        span = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if span and int(span.group(1)) == size:
            return size
        discard(part)
        raise TransientError("the server sent another range than requested")
    if status == 304:
        raise NotModifiedError
    if status == 416:
        discard(part)
        raise TransientError("the server refused to resume")
    return _refuse_status(response)


def _refuse_status(response: requests.Response) -> NoReturn:
    status = response.status_code
    if status in _RETRIED:
        wait_s = response.headers.get("Retry-After", "")
        raise TransientError(
            f"HTTP {status} {response.reason}", float(wait_s) if wait_s.isdecimal() else 0.0
        )
    if status in (401, 403, 404, 410):
        refuse_page("", response.url, status)
    raise FetchError(f"HTTP {status} {response.reason}")
