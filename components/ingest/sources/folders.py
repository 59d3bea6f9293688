"""Folders with one subfolder per class, and folders that are already split."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from components.ingest.checks.image_validation import IMAGE_SUFFIXES, image_format
from components.ingest.sources.system_files import is_system_file
from components.ingest.sources.tables import SPLIT_NAMES
from regraft_core.runtime.errors import DataError, InputError


class LabeledFile(NamedTuple):
    """A file to read: its path or URL, its name in the dataset, and its class.

    `table` is the URL of the remote table that names the file, empty if no such table does.
    """

    file: str
    path: str
    label: str
    split: str = ""
    group: str = ""
    table: str = ""


@dataclass
class Tally:
    """The number of ignored files, and all classes, including those without images."""

    ignored: int = 0
    classes: set[str] = field(default_factory=set)


def labeled_files(folder: Path, tally: Tally) -> Iterator[LabeledFile]:
    """Yield the files of a folder of class folders, or of one that is already split.

    A single folder that contains either is passed through, as archives often have one.

    Raises:
        DataError: there are no class folders.
    """
    root = folder
    while True:
        folders, files = _listing(root, tally)
        if len(folders) != 1 or files or not _listing(root / folders[0], Tally())[0]:
            break
        root = root / folders[0]
    if not folders:
        found = f"{len(files)} files and no folder" if files else "nothing"
        raise DataError(f"expected class folders with images in {folder}, found {found}")
    tally.ignored += len(files)
    splits = {name: SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES}
    if "train" in splits.values() and len(splits) == len(folders):
        for name, split in splits.items():
            classes, other_files = _listing(root / name, tally)
            tally.ignored += len(other_files)
            yield from _files_of_classes(root / name, classes, folder, split, tally)
    else:
        yield from _files_of_classes(root, folders, folder, "", tally)


def _listing(folder: Path, tally: Tally) -> tuple[list[str], list[str]]:
    """Return the names of folders and of files in `folder`, sorted; system files are counted."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_system_file(entry.name):
                    tally.ignored += 1
                elif entry.is_dir():
                    folders.append(entry.name)
                else:
                    files.append(entry.name)
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}") from error
    return sorted(folders), sorted(files)


def _files_of_classes(
    root: Path, classes: Sequence[str], top: Path, split: str, tally: Tally
) -> Iterator[LabeledFile]:
    # Sliced, because os.path.relpath takes longer than reading a small image.
    start = f"{top}{os.sep}"
    for label in classes:
        tally.classes.add(label)
        for file in _files_below(str(root / label), tally):
            yield LabeledFile(file, file[len(start) :].replace(os.sep, "/"), label, split)


def _files_below(folder: str, tally: Tally) -> Iterator[str]:
    """Yield the candidate files below a class folder, at any depth.

    Links to files are followed; links to folders below the class are not, because of loops.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=attrgetter("name")):
            name, is_folder = entry.name, entry.is_dir()
            if is_system_file(name) or (is_folder and entry.is_symlink()):
                tally.ignored += 1
            elif is_folder:
                yield from _files_below(entry.path, tally)
            elif name.lower().endswith(IMAGE_SUFFIXES) or _starts_as_image(Path(entry.path)):
                yield entry.path
            else:
                tally.ignored += 1


def _starts_as_image(file: Path) -> bool:
    """Return whether a file with another suffix starts as an image does."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return False
        with open(file, "rb") as opened:
            return bool(image_format(opened.read(32)))
    except OSError:
        return False
