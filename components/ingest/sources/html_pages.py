"""HTML pages that a server sends instead of a file: error, sign-in and quota pages."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from components.ingest.sources.download_retry import FetchError, TransientError

PAGE_BYTES = 256 * 1024


def refuse_page_file(file: Path) -> None:
    """Refuse a file that is an HTML page, whatever its name.

    Raises:
        TransientError: it is Google Drive's page for a used-up quota.
        FetchError: it is any other page.
    """
    with open(file, "rb") as opened:
        start = opened.read(PAGE_BYTES)
    if re.match(rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b", start, re.I | re.S):
        refuse_page(start.decode("utf-8", "replace"))


def refuse_page(page: str, url: str = "", status: int = 200) -> None:
    """Raise the error that describes a page that was received instead of a file.

    Args:
        page: the text of the page.
        url: the URL of the response, after redirects.
        status: the HTTP status.

    Raises:
        TransientError: the quota of a Google Drive file is used up.
        FetchError: it is not shared, does not exist, or the page is any other.
    """
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    if re.search(r"quota exceeded|too many users have viewed or downloaded", text, re.I):
        raise TransientError("the Google Drive download quota of this file is used up; try later")
    if (
        status in (401, 403)
        or "accounts.google.com" in urlsplit(url).netloc
        or re.search(r"you need access|request access|permission denied|sign in", text, re.I)
    ):
        raise FetchError("permission denied: the file is not shared with everyone who has the link")
    if status in (404, 410) or re.search(r"requested does not exist|404 not found", text, re.I):
        raise FetchError("the file does not exist")
    title = re.search(r"<title[^>]*>(.*?)</title>", page, re.I | re.S)
    named = f" ({' '.join(title.group(1).split())[:80]!r})" if title else ""
    raise FetchError(f"expected a file, received an HTML page{named}")
