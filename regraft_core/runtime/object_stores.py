"""URIs of object stores (`s3://`, `gs://` and any other scheme that fsspec opens)."""

from __future__ import annotations

from typing import Any

from regraft_core.runtime.addresses import is_remote, redact, scheme_of
from regraft_core.runtime.errors import InputError

REFUSED = ("reference", "zip", "tar", "libarchive", "dir", "simplecache", "filecache", "blockcache")


def is_store_uri(location: str) -> bool:
    """Return whether `location` is the URI of an object store; `file://` is a path."""
    return is_remote(location)


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
