"""The version of Regraft, as written into every manifest, and of its very code."""

from __future__ import annotations

import hashlib
from pathlib import Path

VERSION = "0.2.0"


def code_digest() -> str:
    """Return the SHA-256 (hex) of what the steps run: what other code made is not reused."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256(VERSION.encode())
    for package in ("regraft_core", "components", "serving"):
        for path in sorted((root / package).rglob("*")):
            if path.suffix in (".py", ".j2", ".css", ".html"):
                digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
