"""What is in a folder: subfolders, files that may be images, other files, and what is left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from components.ingest.sources.own_output import is_own_output
from components.ingest.sources.system_files import is_system_file
from regraft_core.images.file_types import has_image_suffix, starts_as_image
from regraft_core.runtime.errors import InputError

_SHOWN_CHARACTERS = 100


@dataclass
class Listing:
    """Names in a folder, sorted; `own` are folders that Regraft made, `system` counts the rest."""

    folders: list[str] = field(default_factory=list)
    linked: set[str] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    system: int = 0


def list_folder(folder: Path) -> Listing:
    """List a folder.

    Raises:
        InputError: it cannot be read.
    """
    listing = Listing()
    for entry in scan(str(folder)):
        if is_system_file(entry.name):
            listing.system += 1
        elif not is_folder(entry):
            listing.files.append(entry.name)
        elif is_own_output(Path(entry.path)):
            listing.own.append(entry.name)
        else:
            listing.folders.append(entry.name)
            if entry.is_symlink():
                listing.linked.add(entry.name)
    return listing


def list_without_images(folder: Path) -> Listing | None:
    """List a folder; None if it has an image, which is found at once in a class folder.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if (
                    has_image_suffix(entry.name)
                    and not is_folder(entry)
                    and not is_system_file(entry.name)
                ):
                    return None
    except OSError as error:
        raise InputError(
            f"cannot read the folder {shorten(str(folder))}: {error.strerror}"
        ) from error
    listing = list_folder(folder)
    return None if candidates_of(folder, listing) else listing


def scan(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder by name.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=attrgetter("name"))
    except OSError as error:
        raise InputError(f"cannot read the folder {shorten(folder)}: {error.strerror}") from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def shorten(path: str) -> str:
    """Return a path for a message: of a very long one, the start and the end."""
    if len(path) <= 2 * _SHOWN_CHARACTERS:
        return path
    return f"{path[:_SHOWN_CHARACTERS]}...{path[-_SHOWN_CHARACTERS:]}"


def candidates_of(folder: Path, listing: Listing) -> list[str]:
    """Return the names of the files in a listed folder that are to be read as images."""
    return [
        name for name in listing.files if has_image_suffix(name) or starts_as_image(folder / name)
    ]


def files_below(folder: str, above: list[str]) -> Iterator[tuple[str, bool]]:
    """Yield the files below a folder at any depth, and whether each is to be read as an image.

    Links are followed. Each folder is read once, and none of `above`, so links never lead in
    circles. Each system file, and each folder that is not read again, counts as a file that is not
    to be read.

    Raises:
        InputError: a folder cannot be read.
    """
    seen = {_identity(path) for path in above}
    pending = [folder]
    while pending:
        inner = []
        for entry in scan(pending.pop()):
            if is_system_file(entry.name):
                yield "", False
            elif not is_folder(entry):
                yield entry.path, has_image_suffix(entry.name) or starts_as_image(entry.path)
            elif (identity := _identity(entry.path)) in seen:
                yield "", False
            else:
                seen.add(identity)
                inner.append(entry.path)
        pending += reversed(inner)


def _identity(folder: str) -> tuple[int, int]:
    try:
        found = Path(folder).stat()
    except OSError as error:
        raise InputError(f"cannot read the folder {shorten(folder)}: {error.strerror}") from error
    return found.st_dev, found.st_ino
