"""What the reader of a source is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from components.ingest.sources.folders import LabeledFile, Tally
from components.ingest.sources.table_columns import TableColumns
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import InputError

MAX_IMAGE_BYTES = 256 << 20
"""Of an image that is no local file of its own."""


@dataclass(frozen=True)
class SourceContext:
    """A folder to write to, the options, the tally to update, and the name for messages."""

    work: Path
    options: IngestOptions
    tally: Tally
    name: str

    @property
    def columns(self) -> TableColumns:
        """The names of columns."""
        return TableColumns.of(self.options)

    def refuse_columns(self) -> None:
        """Refuse the options that name columns, for a source that has none.

        Raises:
            InputError: one is set.
        """
        options = self.options
        for option in ("label_columns", "label_separator"):
            if getattr(options, option):
                raise InputError(f"{option}: expected a table as the source, got {self.name}")
        named = (*options.slices, options.split_column, options.group_column)
        if column := next(filter(None, named), ""):
            raise InputError(
                f"{self.name}: expected no --slices, --split-column and --group-column, because "
                f"only tables and records have columns, got {column!r}"
            )


FolderReader = Callable[[Path, SourceContext], Iterator[LabeledFile]]
