"""From a source as the user names it to a stream of files with their classes.

A source is a folder of class folders, a folder already split, an archive of either, an address of
one, a table (CSV or Parquet), a sample or a recipe.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from components.core.artifacts import Split
from components.core.errors import DataError, InputError, unknown_name
from components.core.options import IngestOptions
from components.ingest.samples import RECIPES, SAMPLES, is_fashion_folder, write_fashion
from components.ingest.validate import PICTURE_SUFFIXES, sniff

SPLIT_NAMES: dict[str, Split] = {
    "train": "train", "training": "train",
    "validation": "validation", "val": "validation", "valid": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
IGNORED_NAMES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


class Item(NamedTuple):
    """A file to look at: where it is (path or address), its name in the dataset, its class."""

    file: str
    path: str
    label: str
    split: str = ""
    group: str = ""


@dataclass
class Tally:
    """What was passed over on the way, and the classes that exist even without pictures."""

    ignored: int = 0
    classes: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """How a source is read: a folder to write in on the way, the options, what was passed over."""

    work: Path
    options: IngestOptions
    tally: Tally


def is_ignored(name: str) -> bool:
    """Tell whether a file or folder is an operating system's litter or hidden."""
    return name.startswith(".") or name in IGNORED_NAMES


def items_of(
    sources: Sequence[str], work: Path, options: IngestOptions, tally: Tally
) -> Iterator[Item]:
    """Yield the files of all sources; several sources prefix the paths with their names.

    Args:
        sources: as the user names them.
        work: a folder for what must be written on the way; the caller removes it.
        options: for downloads and archives.
        tally: filled on the way.

    Raises:
        InputError: a source is not known, cannot be had or has no pictures in class folders.
    """
    if not sources:
        raise InputError("expected at least one source, got none")
    if len(sources) > 1 and (options.sha256 or options.mirrors):
        raise InputError("sha256 and mirrors belong to one source, got several sources")
    for number, source in enumerate(sources):
        reading = Reading(work / f"source-{number}", options, tally)
        prefix = f"{number}-{name_of(source)}/" if len(sources) > 1 else ""
        for item in _opener(source)(source, reading):
            yield item._replace(path=prefix + item.path) if prefix else item


def name_of(source: str) -> str:
    """Return a short name for a source: the last part of its path, without a query."""
    name = re.split(r"[/:=]", re.sub(r"[?#].*", "", source).rstrip("/"))[-1]
    return name or "source"


Opener = Callable[[str, Reading], Iterator[Item]]


def _opener(source: str) -> Opener:
    """Choose how a source is read.

    Raises:
        InputError: nothing fits; near names are suggested.
    """
    if source in SAMPLES:
        return _sample
    if Path(source).is_dir():
        return _folder
    known = [*SAMPLES, *RECIPES]
    parent = Path(source).parent
    if parent.is_dir() and not source.startswith("sample:"):
        known += [str(path) for path in parent.iterdir() if not is_ignored(path.name)]
    raise unknown_name("source", source, known)


def _sample(source: str, reading: Reading) -> Iterator[Item]:
    reading.work.mkdir(parents=True)
    SAMPLES[source](reading.work)
    return folder_items(reading.work, reading.tally)


def _folder(source: str, reading: Reading) -> Iterator[Item]:
    folder = Path(source)
    if is_fashion_folder(folder):
        reading.work.mkdir(parents=True)
        write_fashion(reading.work, folder)
        folder = reading.work
    return folder_items(folder, reading.tally)


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
        raise DataError(f"expected class folders with pictures in {folder}, found {loose}")
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
    for label in classes:
        tally.classes.add(label)
        for file in _files_below(str(root / label), tally):
            path = os.path.relpath(file, top)
            yield Item(file, path.replace(os.sep, "/"), label, split)


def _files_below(folder: str, tally: Tally) -> Iterator[str]:
    """Yield the candidate files below a class folder, at any depth.

    Links to files are followed, links to folders below the class are not, as they may be loops.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            named = entry.name.lower().endswith(PICTURE_SUFFIXES)
            if is_ignored(entry.name) or (entry.is_dir() and entry.is_symlink()):
                tally.ignored += 1
            elif entry.is_dir():
                yield from _files_below(entry.path, tally)
            elif named or _looks_like_a_picture(Path(entry.path)):
                yield entry.path
            else:
                tally.ignored += 1


def _looks_like_a_picture(file: Path) -> bool:
    """Tell by its first bytes whether a file with another name is a picture of ours."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return False
        with open(file, "rb") as opened:
            return bool(sniff(opened.read(32)))
    except OSError:
        return False
