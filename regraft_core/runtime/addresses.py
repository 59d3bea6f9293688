"""Addresses: whether a text is a path or a URL, and how a URL is shown without its secrets.

Only this module decides what a URL is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from regraft_core.runtime.errors import InputError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# With any slashes, as pathlib and users write it.
_SCHEMES = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{1,30}:[/\\]{1,4})")
# A password may contain what ends it in a URL, as secret keys of S3 do; a port is none.
_USER = re.compile(r"(?:[^\s/?#'\"<>:\[]+:(?!\d*(?:[/?#\s'\"<>]|$))[^\s'\"<>]*|[^\s/?#'\"<>]*)@")
# A URL and its query. A fragment that is a route, such as `#/runs/details/ID`, is no secret but a
# part of the address, and neither is a query that is the name of a variable.
_QUERY = re.compile(
    r"\b([A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s?#'\"<>]*)"
    r"((?:\?(?!\$\{\w+\}(?:[\s'\"<>,;)\]}\\]|$))|#(?!/))(?:\$\{\w+\}|[^\s'\"<>,;)\]}\\])*)?"
)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# How S3, Google Cloud, Azure, CloudFront and others name a signature, a key or a token in a query.
_SECRET_NAME = re.compile(
    r"signature|token|secret|passw|credential|authorization|api[-_]?key|access[-_]?key|access[-_]?id"
    r"|^(sig|auth|key|pwd)$",
    re.IGNORECASE,
)


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
        from urllib.request import url2pathname  # its HTTP client takes time to load

        return Path(url2pathname(urlsplit(location).path))
    return Path(location)


def redact(url: str) -> str:
    """Return a URL without what may be secret: user, password, query and fragment."""
    if not is_url(url):
        return url
    return re.split(r"[?#]", _without_user(url), maxsplit=1)[0]


def redact_text(text: str) -> str:
    """Return a text in which every URL is without user and password, and its query is `?...`."""
    if "@" in text:
        text = _without_user(text)
    if "://" in text:
        text = _QUERY.sub(lambda found: f"{found[1]}?..." if found[2] else found[0], text)
    return text


def _without_user(text: str) -> str:
    """Return a text in which every URL is without user and password."""
    start, *parts = _SCHEMES.split(text)
    users = [_USER.match(rest) for rest in parts[1::2]]
    return start + "".join(
        scheme + (rest[user.end() :] if user else rest)
        for scheme, rest, user in zip(parts[::2], parts[1::2], users, strict=True)
    )


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
    if is_remote(location) and _without_user(location) != location:
        raise InputError(
            f"{option}: expected a URL without user and password, got one for {redact(location)}; "
            "set the credentials in the environment, in ~/.netrc or by --secret-env"
        )


def refuse_signature(option: str, location: str) -> None:
    """Refuse a URL whose query contains a signature, key or token.

    Parameters of a run are in compiled files, on the pages of Kubeflow and in the process list.

    Raises:
        InputError: it does; the message does not contain it.
    """
    parts = re.split(r"[?#]", location, maxsplit=1)
    if not is_remote(location) or len(parts) == 1:
        return
    fields = parse_qsl(parts[1].replace("#", "&"), keep_blank_values=True)
    for name, value in fields:
        if _SECRET_NAME.search(_VARIABLE.sub("", name)) and _VARIABLE.sub("", value):
            raise InputError(
                f"{option}: expected a URL without a signature, key or token, got {name}=... for "
                f"{redact(location)}; use s3:// or gs:// with credentials, or put the query into "
                f"an environment variable and write {redact(location)}?${{NAME}} (on a cluster, "
                "set it by --secret-env SECRET:KEY=NAME)"
            )


def variables_of(location: str) -> list[str]:
    """Return the environment variables that the query of a URL names, as in `?${NAME}`."""
    query = re.split(r"[?#]", location, maxsplit=1)[1:] if is_remote(location) else []
    return _VARIABLE.findall(query[0]) if query else []


def with_variables(option: str, location: str) -> str:
    """Return a URL with the values of the environment variables that its query names.

    Only for what the user has written, never for a URL from data, which could send any variable to
    any server. Call it where the request is sent, so that no parameter contains the values.

    Raises:
        InputError: a variable is not set.
    """
    names = variables_of(location)
    if missing := [name for name in names if not os.environ.get(name)]:
        raise InputError(
            f"{option}: expected the environment variable {missing[0]}, which the URL "
            f"{redact(location)}?... names, found none"
        )
    start = min((location.index(mark) for mark in "?#" if mark in location), default=0)
    query = _VARIABLE.sub(lambda found: os.environ[found[1]].removeprefix("?"), location[start:])
    return location[:start] + query if names else location
