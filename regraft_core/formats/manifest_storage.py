"""How manifests and the folders that they describe are stored: atomically, with digests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from regraft_core.runtime.errors import InputError
from regraft_core.runtime.safe_files import new_folder, replaced_file

SCHEMA_VERSION = 2


class Record(BaseModel):
    """A frozen, strictly typed part of a manifest; unknown keys are an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="constants", defer_build=True
    )


class MadeBy(Record):
    """Provenance of a folder; never part of its digest."""

    step: str = Field(description="Name of the step.")
    version: str = Field(description="Version of Regraft.")
    seconds: float = Field(description="Wall time of the step.")


class Manifest(Record):
    """Base of all manifests: a named JSON file at the top of the folder that it describes."""

    file_name: ClassVar[str]

    schema_version: int = Field(
        default=SCHEMA_VERSION, description="Version of these formats; any other is an error."
    )
    digest: str = Field(description="SHA-256 (hex) of the content, defined by each format.")
    made_by: MadeBy = Field(description="Step, version and time; not part of the digest.")

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Self:
        """Read the manifest of `folder`.

        Raises:
            InputError: it is missing, not JSON, has another schema version, or lacks a field.
        """
        path = Path(folder) / cls.file_name
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"expected {cls.file_name} in {folder}, found none") from None
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {path}: {error}") from error
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA_VERSION:
            raise InputError(f"{path}: expected schema_version {SCHEMA_VERSION}, got {version!r}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(f"{path}: {where}: {first['msg']}") from error

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write the manifest into `folder`, synced to the disk."""
        write_text(Path(folder) / self.file_name, self.model_dump_json(indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically: a reader sees the old content or all of the new one."""
    with replaced_file(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def staged_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary sibling of `target` that is renamed to `target` when the block succeeds.

    An empty `target` folder (such as kfp creates) is replaced; one with content is an error. If the
    block raises, the sibling is removed. If the process is killed, it remains, hidden and unused.

    Raises:
        InputError: `target` exists and is not an empty folder.
    """
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"expected no file or an empty folder at {target}, found content")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = new_folder(target.parent, f".{target.name}.")
    try:
        yield staging
        if target.exists():
            target.rmdir()
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def digest_of(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON-serializable value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_digest(path: Path, sha256: str, fix: str) -> None:
    """Compare the content of a file with its digest; once, unless its size or time changes.

    Raises:
        InputError: it does not exist, or has another content; the message ends with `fix`.
    """
    try:
        state = _state_of(path)
        if state not in _DIGESTS:
            _DIGESTS[state] = digest_file(path)
    except OSError as error:
        reason = "" if isinstance(error, FileNotFoundError) else f": {error.strerror}"
        raise InputError(f"{path}: expected a file, found none{reason}; {fix}") from error
    if (digest := _DIGESTS[state]) != sha256:
        raise InputError(f"{path}: expected SHA-256 {sha256[:12]}, found {digest[:12]}; {fix}")


def remember_digest(path: Path, sha256: str) -> None:
    """Note the digest of a file that was computed while it was written, for `check_digest`."""
    _DIGESTS[_state_of(path)] = sha256


# By path, size and time of the last change: digests of the files that this process has read.
_DIGESTS: dict[tuple[str, int, int], str] = {}


def _state_of(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return str(path), found.st_size, found.st_mtime_ns


def digest_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
