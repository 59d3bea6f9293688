"""Pascal VOC: `JPEGImages`, and an XML file in `Annotations` for each image.

http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf. The XML is read by expat's events,
without a tree, and a document type is refused, because it can define entities that expand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from components.ingest.sources.annotated_images import (
    AnnotatedImage,
    Box,
    have_several,
    labeled_objects,
)
from components.ingest.sources.folder_listing import scan
from components.ingest.sources.folders import LabeledFile
from components.ingest.sources.source_context import SourceContext
from components.ingest.sources.split_names import split_of_name
from components.ingest.sources.table_files import file_in_folder
from regraft_core.runtime.errors import DataError, InputError

_ANNOTATIONS, _IMAGES, _SPLITS = "Annotations", "JPEGImages", "ImageSets/Main"
_MAX_XML_BYTES, _MAX_TEXT_CHARACTERS, _MAX_DEPTH = 4 << 20, 1 << 12, 16
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_MAX_LIST_BYTES, _MAX_NUMBER = 256 << 20, 1e9


def is_voc(folder: Path) -> bool:
    """Return whether a folder has the folders of Pascal VOC."""
    return (folder / _ANNOTATIONS).is_dir() and (folder / _IMAGES).is_dir()


def voc_images(folder: Path, context: SourceContext) -> Iterator[LabeledFile]:
    """Yield the images of the annotations, or one image of each box.

    Splits are those of `ImageSets/Main`, if there are any.

    Raises:
        InputError: an image is in two splits, or a file name leads outside.
    """
    context.refuse_columns()
    splits = _read_splits(folder / _SPLITS)
    boxes = (one.boxes for _, one in _annotations(folder) if isinstance(one, VocAnnotation))
    several = have_several(boxes, context)
    for name, found in _annotations(folder):
        if found is None:
            context.tally.ignored += 1
            continue
        if isinstance(found, DataError):
            yield LabeledFile("", f"{_ANNOTATIONS}/{name}", "", problem=str(found))
            continue
        stem = name.removesuffix(".xml")
        path = f"{_IMAGES}/{found.file_name or f'{stem}.jpg'}"
        image = AnnotatedImage(
            file_in_folder(path, folder, context.name), path, splits.get(stem, ""),
            *found.size, found.boxes,
        )  # fmt: skip
        yield from labeled_objects(image, context, several=several)


def _annotations(folder: Path) -> Iterator[tuple[str, VocAnnotation | DataError | None]]:
    """Yield the names of the files and their annotations, or what is wrong; None for others."""
    for entry in scan(str(folder / _ANNOTATIONS)):
        if not entry.name.endswith(".xml") or entry.name.startswith("."):
            yield entry.name, None
            continue
        try:
            yield entry.name, parse_annotation(_read(Path(entry.path)))
        except DataError as error:
            yield entry.name, error


@dataclass
class VocAnnotation:
    """The annotation of one image: name of its file, width and height, and boxes."""

    file_name: str = ""
    size: tuple[int, int] = (0, 0)
    boxes: list[Box] = field(default_factory=list)


def parse_annotation(data: bytes) -> VocAnnotation:
    """Return the annotation in an XML document.

    Raises:
        DataError: it is not XML, has a document type, or a number is none.
    """
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.add_text
    parser.StartDoctypeDeclHandler = reader.refuse_document_type
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise DataError(f"expected XML: {error}") from error
    return reader.found


class _Reader:
    """Collects the fields of an annotation from the events of a parser."""

    def __init__(self) -> None:
        self.found = VocAnnotation()
        self._path: list[str] = []
        self._text = ""
        self._size: dict[str, int] = {}
        self._object: dict[str, str] = {}

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        self._path.append(name)
        self._text = ""
        if len(self._path) > _MAX_DEPTH:
            raise DataError(f"expected at most {_MAX_DEPTH} nested elements, found more")

    def add_text(self, text: str) -> None:
        self._text += text
        if len(self._text) > _MAX_TEXT_CHARACTERS:
            raise DataError(f"expected at most {_MAX_TEXT_CHARACTERS} characters in an element")

    def end(self, _name: str) -> None:
        path, text = "/".join(self._path[1:]), self._text.strip()
        self._text = ""
        self._path.pop()
        if path == "filename":
            self.found.file_name = text
        elif path in ("size/width", "size/height"):
            self._size[path] = round(_number(text))
            self.found.size = (self._size.get("size/width", 0), self._size.get("size/height", 0))
        elif path == "object":
            corners = [self._object.get(f"bndbox/{one}", "") for one in _CORNERS]
            left, top, right, bottom = map(_number, corners)
            # Pixels are numbered from 1, and the last is part of the box.
            box = Box(self._object.get("name", ""), left - 1, top - 1, right, bottom)
            self.found.boxes.append(box)
            self._object = {}
        elif path.startswith("object/"):
            self._object.setdefault(path.removeprefix("object/"), text)

    def refuse_document_type(self, *_: object) -> None:
        raise DataError("expected XML without a document type")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) < _MAX_NUMBER:
        raise DataError(f"expected a number, got {text[:40]!r}")
    return value


def _read(file: Path) -> bytes:
    size = file.stat().st_size
    if size > _MAX_XML_BYTES:
        raise DataError(f"expected at most {_MAX_XML_BYTES} bytes of XML, got {size}")
    return file.read_bytes()


def _read_splits(folder: Path) -> dict[str, str]:
    """Return the split of each image that a list such as `train.txt` names.

    Raises:
        InputError: an image is in two splits, or a list is very large.
    """
    splits: dict[str, str] = {}
    for entry in scan(str(folder)) if folder.is_dir() else ():
        split = split_of_name(entry.name.removesuffix(".txt"))
        if not split or not entry.name.endswith(".txt"):
            continue
        if entry.stat().st_size > _MAX_LIST_BYTES:
            raise InputError(f"{entry.path}: expected at most {_MAX_LIST_BYTES} bytes")
        for line in Path(entry.path).read_text(encoding="utf-8", errors="replace").splitlines():
            stem = line.strip()
            if stem and splits.setdefault(stem, split) != split:
                raise InputError(
                    f"{entry.path}: expected each image in one split, found {stem[:80]!r} in "
                    f"{splits[stem]} and {split}"
                )
    return splits
