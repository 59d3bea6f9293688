"""Addresses of object stores (`s3://`, `gs://` and whatever else fsspec opens)."""

from __future__ import annotations

from typing import Any

from regraft_core.runtime.errors import InputError


def is_address(place: str) -> bool:
    """Tell an object store's address from a path; `file://` names a path."""
    return "://" in place and not place.startswith("file://")


def open_address(address: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address, and the path in it.

    Raises:
        InputError: the scheme is not known, or what it needs is not installed.
    """
    scheme = address.split("://", 1)[0]
    try:
        import fsspec

        store, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise InputError(
            f"{scheme}:// needs packages that are missing ({error}); they "
            "come with the extra [cloud]; in a checkout: make install"
        ) from error
    except ValueError as error:
        # Without the address, which may hold a password.
        raise InputError(f"cannot open {scheme}://: {error}") from error
    return store, str(path).rstrip("/")
