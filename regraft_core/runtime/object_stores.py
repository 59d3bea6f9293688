"""URIs of object stores (`s3://`, `gs://` and any other scheme that fsspec opens)."""

from __future__ import annotations

from typing import Any

from regraft_core.runtime.addresses import is_remote, redact, scheme_of
from regraft_core.runtime.errors import InputError, UnavailableError

# Errors that every attempt meets; the libraries of stores raise many others if a request fails.
_PERMANENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)

REFUSED = ("reference", "zip", "tar", "libarchive", "dir", "simplecache", "filecache", "blockcache")


def is_store_uri(location: str) -> bool:
    """Return whether `location` is the URI of an object store; `file://` is a path."""
    return is_remote(location)


def check_scheme(name: str, uri: str) -> None:
    """Check that there are object stores or servers of a URI's scheme, installed here or not.

    Raises:
        InputError: the scheme is unknown; the message starts with `name`.
    """
    from fsspec.registry import known_implementations, registry

    scheme = uri.split("://", 1)[0]
    if scheme not in (*known_implementations, *registry):
        raise InputError(f"{name}: expected a URI such as s3:// or gs://, got {scheme}://")


def access_error(prefix: str, error: Exception) -> InputError:
    """Return the error of a file system, or of a store's library, in one line."""
    kind = InputError if isinstance(error, _PERMANENT) else UnavailableError
    line = " ".join(str(error).split())[:200]
    return kind(f"{prefix}: {type(error).__name__}: {line}")


def open_store_uri(uri: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URI, and the path in it.

    Raises:
        InputError: the scheme is unknown or refused, the URI is a chain (`::`), or a package that
            it needs is not installed.
    """
    scheme = scheme_of(uri)
    if "::" in uri or scheme in REFUSED:
        # fsspec would open one address inside another, or let a file name addresses.
        raise InputError(
            f"cannot open {redact(uri)}: expected one address such as s3://bucket/path"
        )
    try:
        import fsspec

        store, path = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        raise InputError(
            f"{scheme}:// needs packages that are missing ({error}); they "
            "come with the extra [cloud]; in a checkout: make install"
        ) from error
    except ValueError as error:
        # Without the URI, which may contain a password.
        raise InputError(f"cannot open {scheme}://: {error}") from error
    return store, str(path).rstrip("/")
