"""Addresses: whether a text is a path or a URL, and how a URL is shown without its secrets.

Only this module decides what a URL is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from regraft_core.runtime.errors import InputError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_USER = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#'\"<>]*@")
# A fragment that is a route, such as `#/runs/details/ID`, is no secret but a part of the address.
_QUERY = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://[^\s?#'\"<>]*)(?:\?|#(?!/))[^\s'\"<>,;)\]}\\]*")


def scheme_of(location: str) -> str:
    """Return the scheme of a URL in lower case, or "" for a path."""
    found = _SCHEME.match(location)
    return found[1].lower() if found else ""


def is_url(location: str) -> bool:
    """Return whether `location` is a URL, also one of a local file; otherwise it is a path."""
    return bool(scheme_of(location))


def is_remote(location: str) -> bool:
    """Return whether `location` is a URL that is not a local file's."""
    return scheme_of(location) not in ("", "file")


def is_http(location: str) -> bool:
    """Return whether `location` is a URL of the web."""
    return scheme_of(location) in ("http", "https")


def local_path(location: str) -> Path:
    """Return the path of a local file or folder, given as a path or as a `file://` URL."""
    if scheme_of(location) == "file":
        return Path(url2pathname(urlsplit(location).path))
    return Path(location)


def redact(url: str) -> str:
    """Return a URL without what may be secret: user, password, query and fragment."""
    if not is_url(url):
        return url
    return _USER.sub(r"\1", re.split(r"[?#]", url, maxsplit=1)[0])


def redact_text(text: str) -> str:
    """Return a text in which every URL is without user and password, and its query is `?...`."""
    if "://" not in text:
        return text
    return _QUERY.sub(r"\1?...", _USER.sub(r"\1", text))


def redact_all(value: Any) -> Any:
    """Return a JSON value in which every text is redacted, as by `redact_text`."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict):
        return {name: redact_all(one) for name, one in value.items()}
    return [redact_all(one) for one in value] if isinstance(value, list | tuple) else value


def refuse_credentials(option: str, location: str) -> None:
    """Refuse a URL that contains a user or password, which logs and process lists would show.

    Raises:
        InputError: it does; the message does not contain them.
    """
    if is_remote(location) and _USER.match(location):
        raise InputError(
            f"{option}: expected a URL without user and password, got one for {redact(location)}; "
            "set the credentials in the environment, in ~/.netrc or by --secret-env"
        )
