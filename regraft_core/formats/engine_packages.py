"""The packages of the engines that compute a frozen backbone, which are checked before a run."""

from __future__ import annotations

from importlib.util import find_spec

from regraft_core.runtime.errors import InputError

ENGINE_PACKAGES = {"openvino": "openvino"}
_OTHERWISE = {"feature-engine": "auto", "serving-engine": "tf"}


def is_engine_installed(name: str) -> bool:
    """Return whether the package of an engine, if it has one, is installed here."""
    package = ENGINE_PACKAGES.get(name)
    return package is None or find_spec(package) is not None


def check_engine_package(name: str, option: str = "feature-engine") -> None:
    """Check that the package of an engine, the value of an option, is installed here.

    Raises:
        InputError: it is missing.
    """
    if not is_engine_installed(name):
        raise InputError(
            f"{option}: {name} needs {ENGINE_PACKAGES[name]}, not installed here; "
            f"pip install 'regraft[{name}]', or use --{option} {_OTHERWISE[option]}"
        )
