"""COCO: JSON files of images, annotations and categories (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from components.ingest.sources.annotated_images import (
    AnnotatedImage,
    Box,
    have_several,
    labeled_objects,
)
from components.ingest.sources.folder_listing import is_folder, scan
from components.ingest.sources.folders import LabeledFile
from components.ingest.sources.json_text import read_json_object
from components.ingest.sources.source_context import SourceContext
from components.ingest.sources.split_names import split_of_name
from components.ingest.sources.table_files import file_in_folder
from regraft_core.runtime.errors import InputError

_PARTS = ("images", "annotations", "categories")
_FILE = re.compile(r"instances_(.+)\.json")
_FILE_OF_SPLIT = "_annotations.coco.json"


def coco_files(folder: Path) -> list[Path]:
    """Return the annotation files of a folder.

    They are `instances_*.json` in it or in its `annotations`, or `_annotations.coco.json` in it or
    in the folder of each split.
    """
    inner = [folder / entry.name for entry in scan(str(folder)) if is_folder(entry)]
    places = [one for one in (folder, folder / "annotations") if one == folder or one in inner]
    named = [
        one / entry.name
        for one in places
        for entry in scan(str(one))
        if _FILE.fullmatch(entry.name)
    ]
    of_splits = [one / _FILE_OF_SPLIT for one in (folder, *inner)]
    return named or [file for file in of_splits if file.is_file()]


def coco_folder_images(folder: Path, context: SourceContext) -> Iterator[LabeledFile]:
    """Yield the images of all annotation files of a folder; the names of files are their splits.

    Raises:
        InputError: as `coco_images`.
    """
    images: list[AnnotatedImage] = []
    for file in coco_files(folder):
        found = _FILE.fullmatch(file.name)
        name = found[1] if found else file.parent.name
        inside = [] if found else [str(file.parent.relative_to(folder))]
        places = [*inside, name, f"images/{name}", "images", "."]
        images += _annotated(file, folder, places, split_of_name(name) or "", context)
    return _labeled(images, context)


def coco_images(file: Path, context: SourceContext) -> Iterator[LabeledFile]:
    """Yield the images of an annotation file, or one image of each box.

    They are next to the file or in a folder `images` there.

    Raises:
        InputError: the file is not of this format, or a file name leads outside.
    """
    return _labeled(_annotated(file, file.parent, (".", "images"), "", context), context)


def _labeled(images: list[AnnotatedImage], context: SourceContext) -> Iterator[LabeledFile]:
    context.refuse_columns()
    several = have_several((image.boxes for image in images), context)
    for image in images:
        if image.file:
            yield from labeled_objects(image, context, several=several)
        else:
            yield LabeledFile("", image.path, "", problem="no file_name")


def _annotated(
    file: Path, folder: Path, places: Sequence[str], split: str, context: SourceContext
) -> list[AnnotatedImage]:
    """Return the images of an annotation file; `file` is empty for those without a name.

    Args:
        file: the JSON file.
        folder: of the source; images are below it.
        places: folders in it that may have the images; the first that has one is taken.
        split: of all images, or empty.
        context: of the source.

    Raises:
        InputError: the file is not of this format, or a file name leads outside.
    """
    name = f"{context.name}: {file.name}"
    document = read_json_object(file, name)
    images, annotations, categories = (_objects(document, part, name) for part in _PARTS)
    labels = {_identity(one, "id", name): str(one.get("name") or "") for one in categories}
    sizes = {_identity(one, "id", name): one for one in images}
    if len(labels) < len(categories) or len(sizes) < len(images):
        raise InputError(f"{name}: expected different ids, found one twice")
    boxes: dict[Any, list[Box]] = {identity: [] for identity in sizes}
    unlisted, example = 0, ""
    for one in annotations:
        identity = _identity(one, "image_id", name)
        if identity in boxes:
            label = labels.get(_identity(one, "category_id", name), "")
            boxes[identity].append(_box(one, label, name))
        else:
            unlisted, example = unlisted + 1, example or str(identity)[:40]
    counts = Counter(filter(None, labels.values()))
    if equal := [label for label, count in counts.items() if count > 1]:
        context.tally.warnings.append(
            f"{name}: categories of one name are one class, for instance {equal[0][:40]!r}"
        )
    if unlisted:
        context.tally.warnings.append(
            f"{name}: {unlisted} annotations are of images that are not listed, for instance "
            f"of {example}"
        )
    place = _place(folder, places, images, context.name)
    found = []
    for identity, one in sizes.items():
        path = f"{place}{one['file_name']}" if one.get("file_name") else ""
        found.append(AnnotatedImage(
            file_in_folder(path, folder, context.name) if path else "",
            path or f"{file.name}#{identity}", split,
            _side(one, "width", name), _side(one, "height", name), boxes[identity],
        ))  # fmt: skip
    return found


def _objects(document: dict[str, Any], part: str, name: str) -> list[dict[str, Any]]:
    found = document.get(part)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InputError(
            f"{name}: expected COCO's lists of objects ({', '.join(_PARTS)}), found no {part}"
        )
    return found


def _identity(value: dict[str, Any], key: str, name: str) -> int | str:
    found = value.get(key)
    if not isinstance(found, int | str):
        raise InputError(f"{name}: expected a number as {key}, got {str(found)[:40]}")
    return found


def _box(annotation: dict[str, Any], label: str, name: str) -> Box:
    """Return the box of an annotation, which has left, top, width and height."""
    values, is_crowd = annotation.get("bbox"), bool(annotation.get("iscrowd"))
    if values is None:
        return Box(label, 0.0, 0.0, 0.0, 0.0, is_crowd)
    if not isinstance(values, list) or len(values) != 4 or not all(map(_is_number, values)):
        raise InputError(f"{name}: expected a bbox of four numbers, got {str(values)[:80]}")
    left, top, width, height = map(float, values)
    return Box(label, left, top, left + width, top + height, is_crowd)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _side(image: dict[str, Any], key: str, name: str) -> int:
    value = image.get(key, 0)
    if not _is_number(value):
        raise InputError(f"{name}: expected a number as {key}, got {str(value)[:40]}")
    return int(value)


def _place(folder: Path, places: Sequence[str], images: Sequence[Any], name: str) -> str:
    """Return the folder of the images, with a slash: the first place that has the first image."""
    named = (str(one["file_name"]) for one in images if one.get("file_name"))
    first = next(named, "")
    for place in places:
        inside = "" if place == "." else f"{place}/"
        if first and Path(file_in_folder(f"{inside}{first}", folder, name)).is_file():
            return inside
    return "" if places[0] == "." else f"{places[0]}/"
