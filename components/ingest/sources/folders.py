"""Folders of class folders, and folders that are split already."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from components.ingest.checks.validate import IMAGE_SUFFIXES, sniff
from components.ingest.sources.system_files import is_ignored
from components.ingest.sources.tables import SPLIT_NAMES
from regraft_core.runtime.errors import DataError, InputError


class Item(NamedTuple):
    """A file to look at: where it is (path or address), its name in the dataset, its class."""

    file: str
    path: str
    label: str
    split: str = ""
    group: str = ""


@dataclass
class Tally:
    """What was passed over on the way, and the classes that exist even without images."""

    ignored: int = 0
    classes: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def folder_items(folder: Path, tally: Tally) -> Iterator[Item]:
    """Yield the files of a folder of class folders, or of one that is already split.

    Single folders around either are passed through, as archives often have one.

    Raises:
        DataError: there are no class folders, or only some of the folders are splits.
    """
    root = folder
    while True:
        folders, files = _listing(root, tally)
        if len(folders) != 1 or files or not _listing(root / folders[0], Tally())[0]:
            break
        root = root / folders[0]
    if not folders:
        loose = f"{len(files)} files and no folder" if files else "nothing"
        raise DataError(f"expected class folders with images in {folder}, found {loose}")
    tally.ignored += len(files)
    splits = {name: SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES}
    if "train" in splits.values() and len(splits) == len(folders):
        for name, split in splits.items():
            classes, loose_files = _listing(root / name, tally)
            tally.ignored += len(loose_files)
            yield from _class_items(root / name, classes, folder, split, tally)
    else:
        yield from _class_items(root, folders, folder, "", tally)


def _listing(folder: Path, tally: Tally) -> tuple[list[str], list[str]]:
    """Return the names of folders and of files in `folder`, sorted; litter is only counted."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_ignored(entry.name):
                    tally.ignored += 1
                elif entry.is_dir():
                    folders.append(entry.name)
                else:
                    files.append(entry.name)
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}") from error
    return sorted(folders), sorted(files)


def _class_items(
    root: Path, classes: Sequence[str], top: Path, split: str, tally: Tally
) -> Iterator[Item]:
    # Sliced, as os.path.relpath takes longer than reading a small image.
    start = f"{top}{os.sep}"
    for label in classes:
        tally.classes.add(label)
        for file in _files_below(str(root / label), tally):
            yield Item(file, file[len(start) :].replace(os.sep, "/"), label, split)


def _files_below(folder: str, tally: Tally) -> Iterator[str]:
    """Yield the candidate files below a class folder, at any depth.

    Links to files are followed, links to folders below the class are not, as they may be loops.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=attrgetter("name")):
            name, folder_inside = entry.name, entry.is_dir()
            if is_ignored(name) or (folder_inside and entry.is_symlink()):
                tally.ignored += 1
            elif folder_inside:
                yield from _files_below(entry.path, tally)
            elif name.lower().endswith(IMAGE_SUFFIXES) or _looks_like_an_image(Path(entry.path)):
                yield entry.path
            else:
                tally.ignored += 1


def _looks_like_an_image(file: Path) -> bool:
    """Tell by its first bytes whether a file with another name is an image of ours."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return False
        with open(file, "rb") as opened:
            return bool(sniff(opened.read(32)))
    except OSError:
        return False
