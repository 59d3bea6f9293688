"""Python processes that run a module of this package, wherever they are started."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with a safe path.

    With `-P` the working folder is not searched for modules, so a folder `serving/` there is not
    imported in place of this package.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment() -> dict[str, str]:
    """Return this process's environment, in which the process imports the same packages.

    PYTHONPATH is searched before the installed packages, so a folder `serving/` there would be
    imported in place of this package: the folder of this package is put first.
    """
    environment = dict(os.environ)
    if search_path := environment.get("PYTHONPATH"):
        own = str(Path(__file__).resolve().parents[1])
        environment["PYTHONPATH"] = os.pathsep.join([own, search_path])
    return environment
