"""What all transfers share: which failures pass, waiting between tries, pages that say no.

FetchError (an InputError)   this address will not give the file; a mirror may
`-- (retried)                TransientError: time-outs, resets, 5xx, short bodies, Drive's quota
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from regraft_core.formats.options import IngestOptions
from regraft_core.runtime.errors import InputError

MAX_WAIT_S = 60.0
PAGE_BYTES = 256 * 1024
T = TypeVar("T")


class FetchError(InputError):
    """An address does not give what it should; trying again will not help."""


class TransientError(Exception):
    """A failure that may pass. `wait_s` is what the server asked for, if anything."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Deadline:
    """Seconds that are left of all that a transfer may take."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left, 0 when it has passed."""
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raise `FetchError` once the deadline has passed."""
        if not self.left:
            raise FetchError(f"the download took more than its deadline of {self._seconds:g} s")


def with_retries(
    action: Callable[[], T], options: IngestOptions, deadline: Deadline, attempts: int = 0
) -> T:
    """Run `action` until it succeeds, waiting ever longer (at random) between the tries.

    Raises:
        FetchError: the last try failed, or the deadline passed.
    """
    attempts = attempts or options.download_attempts
    for attempt in range(attempts):
        deadline.check()
        try:
            return action()
        except TransientError as error:
            if attempt + 1 == attempts:
                tries = f" ({attempts} tries)" if attempts > 1 else ""
                raise FetchError(f"{error}{tries}") from error
            # Full jitter, so that many clients do not come back at one moment.
            ceiling = min(MAX_WAIT_S, options.download_backoff_s * 2**attempt)
            wait_s = max(min(error.wait_s, MAX_WAIT_S), random.uniform(0.0, ceiling))  # noqa: S311
            time.sleep(min(wait_s, deadline.left))
    raise AssertionError("unreachable")


def shown(address: str) -> str:
    """Return an address without what may be secret: user, password, query and fragment."""
    if "://" not in address:
        return address
    parts = urlsplit(address)
    host = parts.netloc.rsplit("@", 1)[-1]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def refuse_page(file: Path) -> None:
    """Refuse a file that is an HTML page, whatever its name says.

    Raises:
        TransientError: it is Google Drive's page for a used-up quota.
        FetchError: it is any other page.
    """
    with open(file, "rb") as opened:
        start = opened.read(PAGE_BYTES)
    if re.match(rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b", start, re.I | re.S):
        refuse_html(start.decode("utf-8", "replace"))


def refuse_html(page: str, address: str = "", status: int = 200) -> None:
    """Say what a page that came in place of a file means.

    Args:
        page: the text of the page.
        address: where the request ended, after redirects.
        status: the HTTP status.

    Raises:
        TransientError: the quota of a Google Drive file is used up.
        FetchError: it is not shared, does not exist, or the page is any other.
    """
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    if re.search(r"quota exceeded|too many users have viewed or downloaded", text, re.I):
        raise TransientError("Google Drive's download quota of this file is used up; try later")
    if (
        status in (401, 403)
        or "accounts.google.com" in urlsplit(address).netloc
        or re.search(r"you need access|request access|permission denied|sign in", text, re.I)
    ):
        raise FetchError("permission denied: the file is not shared with everyone who has the link")
    if status in (404, 410) or re.search(r"requested does not exist|404 not found", text, re.I):
        raise FetchError("the file does not exist there")
    title = re.search(r"<title[^>]*>(.*?)</title>", page, re.I | re.S)
    named = f" ({' '.join(title.group(1).split())[:80]!r})" if title else ""
    raise FetchError(f"expected a file, received an HTML page{named}")
