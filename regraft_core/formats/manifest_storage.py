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
from regraft_core.runtime.safe_files import new_file, new_folder

SCHEMA_VERSION = 2


class Record(BaseModel):
    """A frozen, strictly typed part of a manifest; unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


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
    descriptor, temporary = new_file(path.parent, path.name)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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


def digest_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
