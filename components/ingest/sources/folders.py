"""Files of folders with one subfolder per class, and of folders that are already split."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from components.ingest.sources.folder_layout import ClassFolders, find_layout
from components.ingest.sources.folder_listing import files_below
from components.ingest.sources.labels import class_label
from regraft_core.formats.options.ingest import FolderUse
from regraft_core.runtime.errors import InputError

FOLDER = "folder"


class Crop(NamedTuple):
    """A box in pixels, and the size of the image it refers to (0 if that is not known)."""

    left: float
    top: float
    right: float
    bottom: float
    width: int = 0
    height: int = 0


class LabeledFile(NamedTuple):
    """A file to read: its path or URL, its name in the dataset, and its class.

    `problem` says why it cannot be read, such as an invalid row of a table; otherwise it is empty.
    `table` is the URL of the remote table that names the file, empty if no such table does.
    `slices` are the values of its slices. With several labels an image, they are `labels`, and
    `label` is their JSON list. `data` is the content of an image that is no file of its
    own, such as a row of a table. With `size`, the image is a part of the file, from `start`. With
    `crop`, the image is a box of that in the file.
    """

    file: str
    path: str
    label: str
    split: str = ""
    group: str = ""
    problem: str = ""
    table: str = ""
    slices: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    data: bytes | None = None
    start: int = 0
    size: int | None = None
    crop: Crop | None = None


@dataclass
class Tally:
    """What was found beside the files to read.

    Attributes:
        ignored: the number of ignored files.
        example: one of them that is no system file.
        classes: all classes, including those without images.
        warnings: of files and folders that are not used.
        tried: the first path of a table that does not exist.
        several: whether an image has several labels; None if no label was read.
        has_groups: whether a table has groups.
    """

    ignored: int = 0
    example: str = ""
    classes: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    tried: str = ""
    several: bool | None = None
    has_groups: bool = False

    def add_classes(self, classes: Iterable[str], source: str, *, several: bool) -> None:
        """Add classes of images of a source.

        Raises:
            InputError: those of another source have one label, and these several, or the reverse.
        """
        if self.several not in (None, several):
            raise InputError(
                f"{source}: expected {'one label' if self.several is False else 'several labels'} "
                "an image, as in the sources before"
            )
        self.several = several
        self.classes.update(classes)


def labeled_files(
    folder: Path,
    tally: Tally,
    use: FolderUse = "auto",
    name: str = "",
    slices: Sequence[str] = (),
) -> Iterator[LabeledFile]:
    """Yield the files of a folder of class folders, or of one that is already split.

    A single folder that contains either is passed through, as archives often have one.

    Args:
        folder: the folder.
        tally: is updated.
        use: whether its subfolders are classes or splits.
        name: of the source, for messages; by default that of the folder.
        slices: `folder`, or none.

    Raises:
        DataError: there are no class folders, or it is unclear whether they are.
        InputError: a folder cannot be read, or has no such slices.
    """
    if other := [one for one in slices if one != FOLDER]:
        raise InputError(
            f"{name or folder}: slices: expected `{FOLDER}`, because only a table has columns, got "
            f"{other[0]!r}"
        )
    layout = find_layout(folder, use, name or str(folder))
    tally.ignored += layout.ignored
    tally.warnings += layout.warnings
    for part in layout.parts:
        tally.add_classes(map(class_label, part.names), name or str(folder), several=False)
        yield from _files_of_classes(part, folder, tally, with_folder=bool(slices))


def _files_of_classes(
    part: ClassFolders, top: Path, tally: Tally, *, with_folder: bool
) -> Iterator[LabeledFile]:
    # Sliced, because os.path.relpath takes longer than reading a small image.
    start = f"{top}{os.sep}"
    for name in part.names:
        label = class_label(name)
        folder = str(part.root / name)
        for file, is_image in files_below(folder, [str(top), str(part.root), folder]):
            path = file[len(start) :].replace(os.sep, "/")
            if is_image:
                below = _first_folder(file[len(folder) + 1 :]) if with_folder else ()
                yield LabeledFile(file, path, label, part.split, slices=below)
            else:
                tally.ignored += 1
                tally.example = tally.example or path


def _first_folder(path: str) -> tuple[str]:
    """Return the slice of a file by its path in the class folder; empty if it is in no other."""
    name = path.partition(os.sep)[0] if os.sep in path else ""
    return (os.fsencode(name).decode("utf-8", "replace"),)
