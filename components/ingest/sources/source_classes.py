"""The classes of sources that show them before any image is read."""

from __future__ import annotations

from collections.abc import Sequence

from components.ingest.sources.archives import archive_kind
from components.ingest.sources.folder_layout import find_layout
from components.ingest.sources.labels import class_label
from components.ingest.sources.samples import DIGIT_CLASSES, FASHION_CLASSES, is_fashion_folder
from components.ingest.sources.tables import is_parquet, table_rows
from regraft_core.formats.options import FolderUse
from regraft_core.runtime.addresses import local_path
from regraft_core.sources.kinds import SAMPLE_NAMES

_SAMPLE_CLASSES = dict(zip(SAMPLE_NAMES, (DIGIT_CLASSES, FASHION_CLASSES), strict=True))


def find_classes(sources: Sequence[str], folders: FolderUse) -> set[str] | None:
    """Return the classes of all sources: samples, folders and tables on this machine.

    Args:
        sources: as given by the user.
        folders: what the folders of the sources are.

    Returns:
        The classes; None if a source shows them only when it is read, such as an archive or a URL.

    Raises:
        InputError, DataError: a table or a folder cannot be read, or has no classes.
    """
    found: set[str] = set()
    for source in sources:
        classes = _classes(source, folders)
        if classes is None:
            return None
        found |= classes
    return found


def _classes(source: str, folders: FolderUse) -> set[str] | None:
    if source in _SAMPLE_CLASSES:
        return set(_SAMPLE_CLASSES[source])
    path = local_path(source)
    if path.is_dir():
        if is_fashion_folder(path):
            return set(FASHION_CLASSES)
        layout = find_layout(path, folders, source)
        return {class_label(name) for part in layout.parts for name in part.names}
    is_table = path.is_file() and not archive_kind(path)
    if is_table and (is_parquet(path) or path.name.lower().endswith((".csv", ".csv.txt"))):
        return {row.label for row in table_rows(path, source) if not row.problem}
    return None
