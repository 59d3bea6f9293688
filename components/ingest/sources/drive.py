"""Google Drive: links and ids, and downloads by gdown with its pages told apart."""

from __future__ import annotations

import re
from pathlib import Path

import requests

from components.ingest.sources.download_retry import (
    PAGE_BYTES,
    Deadline,
    FetchError,
    TransientError,
    refuse_html,
    refuse_page,
)
from components.ingest.sources.transfer_progress import Advance
from regraft_core.formats.options import IngestOptions
from regraft_core.runtime.errors import InputError

PREFIX = "gdrive:"
_ADDRESS = "https://drive.google.com/uc?id={}"


def drive_id(source: str) -> str:
    """Return the file id in `gdrive:ID`, in a link to Google Drive or in an id itself, or nothing.

    Raises:
        InputError: it is a link to Drive, but not to a file.
    """
    if source.startswith(PREFIX):
        return source.removeprefix(PREFIX)
    if re.fullmatch(r"(?=.*\d)[A-Za-z0-9_-]{25,64}", source):
        return source
    if not re.match(r"https?://(drive|docs)\.google\.com/", source):
        return ""
    from gdown.parse_url import parse_url

    identity, _ = parse_url(url=source)
    if not identity or "/folders/" in source:
        raise InputError(f"expected a Google Drive link to a file, got {source.split('?')[0]}")
    return str(identity)


def download_drive(
    identity: str, part: Path, options: IngestOptions, deadline: Deadline, advance: Advance
) -> None:
    """Make one try to complete `part` by gdown, which keeps what came for the next.

    Raises:
        TransientError: another try may succeed: quota, time-outs, short bodies.
        FetchError: none will: not shared, no such file.
    """

    import gdown
    from gdown.exceptions import DownloadError, FileURLRetrievalError

    def watched(done: int, total: int | None) -> None:
        advance(done, total)
        deadline.check()

    part.unlink(missing_ok=True)
    timeout = (min(10.0, options.download_timeout_s), options.download_timeout_s)
    try:
        gdown.download(
            url=_ADDRESS.format(identity), output=str(part), quiet=True, use_cookies=False,
            resume=True, timeout=timeout, progress=watched,
        )  # fmt: skip
    except FileURLRetrievalError as error:
        if "ermission" not in str(error) or "many accesses" not in str(error):
            refuse_html(str(error))
        # gdown has one text for several pages; the page itself says which.
        _refuse_drive_page(identity, options)
        raise FetchError("Google Drive does not give the file") from error
    except DownloadError as error:
        if "incomplete" not in str(error):
            _forget_parts(part)
        raise TransientError(" ".join(str(error).split())[:200]) from error
    except (requests.RequestException, KeyError, AssertionError) as error:
        # gdown expects some headers of every answer.
        raise TransientError(f"no usable answer ({type(error).__name__})") from error
    refuse_page(part)


def _refuse_drive_page(identity: str, options: IngestOptions) -> None:
    timeout = (min(10.0, options.download_timeout_s), options.download_timeout_s)
    try:
        with requests.get(_ADDRESS.format(identity), stream=True, timeout=timeout) as answer:
            page = answer.raw.read(PAGE_BYTES, decode_content=True).decode("utf-8", "replace")
            refuse_html(page, answer.url, answer.status_code)
    except requests.RequestException as error:
        raise TransientError(f"no usable answer ({type(error).__name__})") from error


def _forget_parts(part: Path) -> None:
    """Remove gdown's partial files where it cannot go on from them."""
    for left in part.parent.glob(f"{part.name}*.part"):
        left.unlink(missing_ok=True)
