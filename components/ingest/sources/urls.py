"""URLs of sources: which kind they are, and how they are shown without credentials."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def is_url(source: str) -> bool:
    """Return whether `source` is a URL, not a path."""
    return "://" in source


def is_http(source: str) -> bool:
    """Return whether `source` is a URL of the web, not of an object store."""
    return source.startswith(("http://", "https://"))


def redact(url: str) -> str:
    """Return a URL without what may be secret: user, password, query and fragment."""
    if not is_url(url):
        return url
    parts = urlsplit(url)
    host = parts.netloc.rsplit("@", 1)[-1]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
