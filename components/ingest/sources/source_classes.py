"""What sources show before any image is read: their classes, and the labels of an image."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.ingest.sources.archives import archive_kind
from components.ingest.sources.coco import coco_folder_images
from components.ingest.sources.embedded_tables import has_embedded_images
from components.ingest.sources.folder_forms import find_form
from components.ingest.sources.folder_layout import find_layout
from components.ingest.sources.folders import LabeledFile, Tally
from components.ingest.sources.labels import class_label
from components.ingest.sources.pascal_voc import voc_images
from components.ingest.sources.samples import DIGIT_CLASSES, FASHION_CLASSES, is_fashion_folder
from components.ingest.sources.shard_folders import shard_images
from components.ingest.sources.source_context import SourceContext
from components.ingest.sources.table_columns import Row, TableColumns
from components.ingest.sources.tables import is_table, table_rows
from components.ingest.sources.web_dataset import is_web_dataset
from regraft_core.formats.options.ingest import FolderUse, IngestOptions
from regraft_core.runtime.addresses import local_path
from regraft_core.sources.kinds import SAMPLE_NAMES

_PEEKED_RECORDS = 64
_SAMPLE_CLASSES = dict(zip(SAMPLE_NAMES, (DIGIT_CLASSES, FASHION_CLASSES), strict=True))


def find_classes(
    sources: Sequence[str], folders: FolderUse, columns: TableColumns
) -> set[str] | None:
    """Return the classes of all sources: samples, folders and tables on this machine.

    Args:
        sources: as given by the user.
        folders: what the folders of the sources are.
        columns: names of the columns of tables.

    Returns:
        The classes; None if a source shows them only when it is read, such as an archive or a URL.

    Raises:
        InputError, DataError: a table or a folder cannot be read, or has no classes.
    """
    found: set[str] = set()
    for source in sources:
        classes = _classes(source, folders, columns)
        if classes is None:
            return None
        found |= classes
    return found


def have_several_labels(sources: Sequence[str], options: IngestOptions) -> bool:
    """Return whether a source on this machine has several labels an image, by its first valid row.

    COCO and Pascal VOC show it only when all of their annotations are read.

    Raises:
        InputError: a source cannot be read, or is no table although the options name its columns of
            labels.
    """
    columns = TableColumns.of(options)
    if columns.form.columns or columns.form.separator:
        for source in sources:
            _refuse_class_folders(source, options)
        return True
    return any(_has_list(source, options) for source in sources)


def _refuse_class_folders(source: str, options: IngestOptions) -> None:
    path, context = local_path(source), SourceContext(Path(), options, Tally(), source)
    is_form = path.is_dir() and options.folders == "auto" and find_form(path)
    if source in _SAMPLE_CLASSES or (path.is_dir() and not is_form):
        context.refuse_columns()


def _has_list(source: str, options: IngestOptions) -> bool:
    """Return whether the first valid row of a source on this machine has a list of labels."""
    path = local_path(source)
    if source in _SAMPLE_CLASSES or not (path.is_dir() or path.is_file()):
        return False
    if _is_table(path):
        rows = (
            row for row in table_rows(path, source, TableColumns.of(options)) if not row.problem
        )
        first: Row | LabeledFile | None = next(rows, None)
    else:
        files = itertools.islice(_records(path, source, options), _PEEKED_RECORDS)
        first = next((file for file in files if not file.problem), None)
    return first is not None and first.labels is not None


def _records(path: Path, source: str, options: IngestOptions) -> Iterator[LabeledFile]:
    """Return the files of a source whose labels are in records, which are read one by one."""
    context = SourceContext(Path(), options, Tally(), source)
    if path.is_dir():
        form = find_form(path) if options.folders == "auto" else None
        if form and form[1] not in (coco_folder_images, voc_images):
            return form[1](form[0], context)
        return iter(())
    kind = archive_kind(path)
    is_tar = kind == "tar" and is_web_dataset(path, source, options)
    if is_tar or (not kind and has_embedded_images(path, source)):
        return shard_images(path, source, "", context)
    return iter(())


def _classes(source: str, folders: FolderUse, columns: TableColumns) -> set[str] | None:
    if source in _SAMPLE_CLASSES:
        return set(_SAMPLE_CLASSES[source])
    path = local_path(source)
    if path.is_dir():
        if is_fashion_folder(path):
            return set(FASHION_CLASSES)
        if folders == "auto" and find_form(path):
            return None
        layout = find_layout(path, folders, source)
        return {class_label(name) for part in layout.parts for name in part.names}
    if not _is_table(path):
        return None
    rows = (row for row in table_rows(path, source, columns) if not row.problem)
    return {name for row in rows for name in row.classes}.union(
        map(class_label, columns.form.columns)
    )


def _is_table(path: Path) -> bool:
    """Return whether a file is a table whose rows can be read without the images."""
    if not path.is_file() or archive_kind(path) or not is_table(path, path.name):
        return False
    return not has_embedded_images(path, str(path))
