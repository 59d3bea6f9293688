"""The layout of a folder: where its class folders are, and whether it is already split."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.ingest.sources.folder_listing import (
    Listing,
    candidates_of,
    list_folder,
    list_without_images,
)
from components.ingest.sources.labels import label_key
from components.ingest.sources.split_names import EXAMPLES, split_of_name
from components.ingest.sources.videos import describe_video, is_video
from regraft_core.formats.options.ingest import FolderUse
from regraft_core.runtime.errors import DataError

# Parts of a class, which many classes may have under the same names.
_PART = re.compile(
    r"(sub|batch|part|chunk|set|session|seq|sequence|video|scene|cam|camera)[ _-]?\d+",
    re.IGNORECASE,
)
_AS_CLASSES = "if they are the classes, add --folders classes"


@dataclass
class ClassFolders:
    """Class folders in one folder, and their split; empty if the source is not split."""

    root: Path
    names: Sequence[str]
    split: str = ""


@dataclass
class FolderLayout:
    """The class folders of a source, the number of other files and what to warn of."""

    parts: list[ClassFolders] = field(default_factory=list)
    ignored: int = 0
    warnings: list[str] = field(default_factory=list)


def find_layout(folder: Path, use: FolderUse, name: str) -> FolderLayout:
    """Find the class folders.

    Args:
        folder: the source.
        use: `classes` and `splits` say what its subfolders are; `auto` takes them for splits if all
            have such names.
        name: of the source, for messages.

    Raises:
        DataError: there are none, or it is unclear whether the subfolders are classes.
    """
    layout = FolderLayout()
    root, listing = _pass_through(folder, layout)
    loose = candidates_of(root, listing)
    if not listing.folders:
        raise DataError(_describe_missing(name, loose, listing))
    _leave(layout, listing, root.name if root != folder else name, loose)
    splits = {found: split_of_name(found) for found in listing.folders}
    are_splits = all(splits.values()) and "train" in splits.values()
    if use == "classes" or (use == "auto" and not are_splits):
        if use == "auto":
            _refuse_unclear(root, listing, name)
        layout.parts.append(ClassFolders(root, listing.folders))
        return layout
    if not are_splits:
        raise DataError(
            f"{name}: expected folders named as splits ({EXAMPLES}), found {_list(listing.folders)}"
        )
    _add_splits(layout, root, {found: split or "" for found, split in splits.items()})
    return layout


def _pass_through(folder: Path, layout: FolderLayout) -> tuple[Path, Listing]:
    """Enter a folder that is alone, or alone among folders and files that have no image."""
    root, listing = folder, list_folder(folder)
    while inner := _wrapper(root, listing):
        layout.ignored += listing.system + len(listing.files)
        root, listing = root / inner, list_folder(root / inner)
    return root, listing


def _wrapper(root: Path, listing: Listing) -> str:
    """Return the only folder that has folders, if nothing beside it has an image; or nothing."""
    inner: dict[str, Listing] = {}
    for name in listing.folders:
        found = list_without_images(root / name)
        if found is None:
            return ""
        inner[name] = found
    with_folders = [name for name, found in inner.items() if found.folders]
    if len(with_folders) != 1 or candidates_of(root, listing):
        return ""
    # An empty folder may be a class without images, which is an error.
    if all(found.files or found.folders for found in inner.values()):
        return with_folders[0]
    return ""


def _add_splits(layout: FolderLayout, root: Path, splits: dict[str, str]) -> None:
    """Add the class folders of each split."""
    order = sorted(splits, key=lambda name: (splits[name] != "train", name))
    trained: set[str] = set()
    for name in order:
        folder = root / name
        listing = list_folder(folder)
        # Some archives have each split twice: train/train.
        if len(listing.folders) == 1 and list_folder(folder / listing.folders[0]).folders:
            layout.ignored += listing.system + len(listing.files)
            folder = folder / listing.folders[0]
            listing = list_folder(folder)
        loose = candidates_of(folder, listing)
        if splits[name] == "train":
            if not listing.folders:
                raise DataError(_describe_flat(name, loose, list(splits)))
            trained |= set(listing.folders)
        elif not listing.folders:
            layout.warnings.append(
                f"{name} has no class folders; its {len(listing.files)} files were ignored"
            )
            layout.ignored += listing.system + len(listing.files)
            continue
        else:
            _check_classes(name, listing.folders, trained)
        _leave(layout, listing, name, loose)
        layout.parts.append(ClassFolders(folder, listing.folders, splits[name]))


def _leave(layout: FolderLayout, listing: Listing, name: str, loose: Sequence[str]) -> None:
    """Count the files beside class folders; warn of images among them and of Regraft's folders."""
    layout.ignored += listing.system + len(listing.files)
    if loose:
        layout.warnings.append(
            f"{len(loose)} images in {name} are in no class folder and were ignored, for instance "
            f"{loose[0]}"
        )
    if listing.own:
        layout.warnings.append(f"outputs of Regraft in {name} were ignored: {_list(listing.own)}")


def _check_classes(name: str, found: Sequence[str], trained: set[str]) -> None:
    """Refuse the folders of a split that are other classes than those of the training split.

    Raises:
        DataError: none is a class of the training split, or one differs only by its writing.
    """
    keys = {label_key(label): label for label in trained}
    written = {unicodedata.normalize("NFC", label) for label in trained}
    for label in found:
        near = keys.get(label_key(label))
        if near is not None and unicodedata.normalize("NFC", label) not in written:
            raise DataError(
                f"{name}: expected the classes of the train split, found {label!r} for {near!r}; "
                "rename the folder"
            )
    if not any(label_key(label) in keys for label in found):
        raise DataError(
            f"{name}: expected folders of the classes {_list(sorted(trained))}, found "
            f"{_list(found)}; remove {name} if its images have no labels"
        )


def _refuse_unclear(root: Path, listing: Listing, name: str) -> None:
    """Refuse folders that may be something else than classes.

    Raises:
        DataError: some have a split's name and only folders in them, or all have the same folders.
    """
    inner = {found: list_without_images(root / found) for found in listing.folders}
    only_folders = {
        found: sorted(set(below.folders) - below.linked)
        for found, below in inner.items()
        if below is not None and below.folders
    }
    splits = [found for found in only_folders if split_of_name(found)]
    if splits:
        raise DataError(
            f"{name}: {_list(splits)} look like splits, expected only splits ({EXAMPLES}) with one "
            f"named train, found {_list(listing.folders)}; move the others away, or {_AS_CLASSES}"
        )
    same = set(map(tuple, only_folders.values()))
    if len(only_folders) != len(inner) or len(same) != 1 or len(inner) < 2:
        return
    (folders,) = same
    if len([inner_name for inner_name in folders if not _PART.fullmatch(inner_name)]) > 1:
        raise DataError(
            f"{name}: expected class folders, found {_list(listing.folders)}, which all have the "
            f"folders {_list(folders)}; use one of them as the source, or {_AS_CLASSES}"
        )


def _describe_missing(name: str, loose: Sequence[str], listing: Listing) -> str:
    if not listing.files:
        found = f"only outputs of Regraft ({_list(listing.own)})" if listing.own else "nothing"
        return f"expected class folders with images in {name}, found {found}"
    example = (loose or listing.files)[0]
    if is_video(example):
        return f"expected class folders with images in {name}; {describe_video(example)}"
    return (
        f"expected class folders with images in {name}, found {len(listing.files)} files and no "
        f"folder, for instance {example}; make one folder per class, or a table with the columns "
        "path and label"
    )


def _describe_flat(name: str, loose: Sequence[str], folders: Sequence[str]) -> str:
    text = f"expected class folders in {name}, found {len(loose)} images"
    text += f", for instance {loose[0]}" if loose else ""
    text += "; make one folder per class, or a table with the columns path and label"
    if len(folders) == 1:
        return text
    return f"{text}; if {_list(folders)} are the classes, add --folders classes"


def _list(names: Sequence[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
