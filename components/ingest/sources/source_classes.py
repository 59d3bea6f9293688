"""What sources show before any image is read: their classes, and the labels of an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from components.ingest.sources.archives import archive_kind
from components.ingest.sources.embedded_tables import has_embedded_images
from components.ingest.sources.folder_forms import find_form
from components.ingest.sources.folder_layout import find_layout
from components.ingest.sources.labels import class_label
from components.ingest.sources.samples import DIGIT_CLASSES, FASHION_CLASSES, is_fashion_folder
from components.ingest.sources.table_columns import TableColumns
from components.ingest.sources.tables import is_table, table_rows
from regraft_core.formats.options.ingest import FolderUse
from regraft_core.runtime.addresses import local_path
from regraft_core.sources.kinds import SAMPLE_NAMES

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


def have_several_labels(sources: Sequence[str], columns: TableColumns) -> bool:
    """Return whether a table on this machine has several labels an image, by its first valid row.

    Raises:
        InputError: a table cannot be read.
    """
    if columns.form.columns or columns.form.separator:
        return True
    tables = (local_path(source) for source in sources if source not in _SAMPLE_CLASSES)
    for table in filter(_is_table, tables):
        rows = (row for row in table_rows(table, str(table), columns) if not row.problem)
        if (first := next(rows, None)) and first.labels is not None:
            return True
    return False


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
