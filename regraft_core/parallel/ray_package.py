"""The package Ray, which is installed by an extra and imported only if it is used."""

from __future__ import annotations

from importlib.util import find_spec

from regraft_core.runtime.errors import InputError


def check_ray_package(address: str) -> None:
    """Check that Ray is installed, without importing it.

    Raises:
        InputError: it is not; how to install it.
    """
    if find_spec("ray") is None:
        raise InputError(
            f"ray {address}: expected the package ray, found none; pip install 'regraft[ray]'"
        )
