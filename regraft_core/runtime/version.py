"""The version of Regraft, which every manifest contains, and a digest of its code."""

from __future__ import annotations

import hashlib
from pathlib import Path

VERSION = "0.2.0"
ROOT = Path(__file__).parents[2]
# In a checkout the client is part of `serving`, in an installation it is a package of its own.
STEP_PACKAGES = ("regraft_core", "components", "serving", "regraft_client")
# Code, and the data files that packages read: templates, pages, settings.
CODE_SUFFIXES = (".py", ".j2", ".css", ".html", ".config", ".yaml")


def code_digest(root: Path = ROOT) -> str:
    """Return the SHA-256 (hex) of the code of all steps; results of other code are not reused.

    Args:
        root: the folder that contains the packages.
    """
    digest = hashlib.sha256(VERSION.encode())
    for package in STEP_PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in CODE_SUFFIXES:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()
