"""The files of an exported model and their fingerprint, which detects any changed bit.

The fingerprint has the format of `sha256sum`, so a shell can check it, in the model's folder:
`sha256sum --check fingerprint`.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from regraft_core.formats.manifest_storage import digest_file
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.runtime.errors import InputError

FINGERPRINT_FILE = "fingerprint"
MODEL_CARD_FILE = "model_card.md"
LABELS_FILE = "assets/labels.txt"
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
# The manifest contains the digest of the fingerprint, so the fingerprint lists neither.
_NOT_LISTED = (FINGERPRINT_FILE, SavedModelManifest.file_name)


def listed_files(folder: str | os.PathLike[str]) -> list[str]:
    """Return the files that a fingerprint of `folder` covers: sorted, relative, with `/`."""
    folder = Path(folder)
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in files if name not in _NOT_LISTED)


def write_fingerprint(folder: str | os.PathLike[str]) -> str:
    """Write the fingerprint of all files of `folder`; return its digest (SHA-256, hex)."""
    folder = Path(folder)
    lines = [f"{digest_file(folder / name)}  {name}\n" for name in listed_files(folder)]
    text = "".join(lines)
    (folder / FINGERPRINT_FILE).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def read_fingerprint(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Return the SHA-256 (hex) by file name that the fingerprint of `folder` lists.

    Raises:
        InputError: it is missing, damaged, or not the one of the manifest.
    """
    path = Path(folder) / FINGERPRINT_FILE
    manifest = SavedModelManifest.read(folder)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"expected {FINGERPRINT_FILE} in {folder}: {error}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != manifest.digest:
        raise InputError(
            f"{path}: expected digest {manifest.digest[:12]} as in the manifest, got {digest[:12]}"
        )
    rows = (line.split("  ", 1) for line in data.decode("utf-8").splitlines())
    return {name: sha256 for sha256, name in rows}


def check_fingerprint(folder: str | os.PathLike[str]) -> SavedModelManifest:
    """Check every byte of an exported model; return its manifest.

    Raises:
        InputError: a file is missing, is not listed, or differs from the exported one.
    """
    expected = read_fingerprint(folder)
    present = listed_files(folder)
    if missing := sorted(set(expected) - set(present)):
        raise InputError(f"{folder}: expected the file {missing[0]}, found none")
    if extra := sorted(set(present) - set(expected)):
        raise InputError(f"{folder}: the file {extra[0]} is not part of the exported model")
    for name in present:
        digest = digest_file(Path(folder) / name)
        if digest != expected[name]:
            raise InputError(
                f"{folder}: {name} is damaged: expected digest {expected[name][:12]}, "
                f"got {digest[:12]}"
            )
    return SavedModelManifest.read(folder)
