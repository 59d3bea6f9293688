"""The files of a source and their classes.

A source is a folder of class folders, a folder that is already split, an archive of either, a URL
of one, a table (CSV or Parquet) or a sample.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.ingest.sources.archives import archive_kind, extract
from components.ingest.sources.download import download_cached
from components.ingest.sources.folders import LabeledFile, Tally, labeled_files
from components.ingest.sources.html_pages import refuse_page_file
from components.ingest.sources.label_lists import LabelForm
from components.ingest.sources.labels import class_label
from components.ingest.sources.object_store import download_folder, is_object
from components.ingest.sources.samples import SAMPLES, is_fashion_folder, write_fashion
from components.ingest.sources.system_files import is_system_file
from components.ingest.sources.table_files import file_of_local_table, file_of_remote_table
from components.ingest.sources.tables import is_parquet, table_rows
from regraft_core.formats.manifest_storage import digest_file
from regraft_core.formats.options import IngestOptions
from regraft_core.runtime.addresses import (
    is_http,
    is_remote,
    local_path,
    redact,
    refuse_credentials,
    with_variables,
)
from regraft_core.runtime.errors import InputError, unknown_name
from regraft_core.sources.kinds import DRIVE_PREFIX, drive_id

_PACKED = {
    b"Rar!": "a rar archive", b"7z\xbc\xaf": "a 7z archive", b"MZ": "a program of Windows",
    b"(\xb5/\xfd": "a zstd archive", b"MSCF": "a cab archive",
}  # fmt: skip


@dataclass(frozen=True)
class SourceContext:
    """What the reader of a source needs: a folder to write to, the options, the tally to update."""

    work: Path
    options: IngestOptions
    tally: Tally


Reader = Callable[[str, SourceContext], Iterator[LabeledFile]]


def source_files(
    sources: Sequence[str], work: Path, options: IngestOptions, tally: Tally
) -> Iterator[LabeledFile]:
    """Yield the files of all sources; with several sources, paths start with the source's name.

    Args:
        sources: as given by the user.
        work: a folder for downloaded and extracted files; the caller removes it.
        options: for downloads and archives.
        tally: updated while the files are read.

    Raises:
        InputError: a source is unknown, cannot be read or has no class folders.
    """
    if not sources:
        raise InputError("expected at least one source, got none")
    if len(sources) > 1 and (options.sha256 or options.mirrors):
        raise InputError("sha256 and mirrors apply to one source, got several sources")
    for option, urls in (("source", sources), ("mirrors", options.mirrors)):
        for url in urls:
            refuse_credentials(option, url)
    readers = [_find_reader(source) for source in sources]
    sources = [with_variables("source", source) for source in sources]
    mirrors = tuple(with_variables("mirrors", url) for url in options.mirrors)
    options = options.model_copy(update={"mirrors": mirrors})
    for number, (source, reader) in enumerate(zip(sources, readers, strict=True)):
        context = SourceContext(work / f"source-{number}", options, tally)
        prefix = f"{number}-{_short_name(source)}/" if len(sources) > 1 else ""
        for file in reader(source, context):
            yield file._replace(path=prefix + file.path) if prefix else file


def source_name(source: str) -> str:
    """Return a source as written to the manifest: without passwords and signatures."""
    identity = drive_id(source) if not local_path(source).exists() else ""
    return f"{DRIVE_PREFIX}{identity}" if identity else redact(source)


def _short_name(source: str) -> str:
    return re.split(r"[/:=]", source_name(source).rstrip("/"))[-1] or "source"


def _find_reader(source: str) -> Reader:
    """Return the function that reads a source.

    Raises:
        InputError: there is none; similar names are suggested.
    """
    path = local_path(source)
    if source in SAMPLES:
        return _read_sample
    if path.is_dir():
        return _read_folder
    if path.is_file():
        return _read_local_file
    if drive_id(source) or is_http(source):
        return _read_download
    if is_remote(source):
        return _read_object_store
    if path.exists():
        raise InputError(f"source: expected a folder or a file, got a pipe or device at {path}; "
                         "write its content to a file")  # fmt: skip
    known = list(SAMPLES)
    if path.parent.is_dir() and ":" not in source:
        known += [str(near) for near in path.parent.iterdir() if not is_system_file(near.name)]
    raise unknown_name("source", source, known)


def _read_sample(source: str, context: SourceContext) -> Iterator[LabeledFile]:
    _refuse_checksum(source, context)
    context.work.mkdir(parents=True)
    SAMPLES[source](context.work)
    return _labeled_files(context.work, source, context)


def _read_folder(source: str, context: SourceContext) -> Iterator[LabeledFile]:
    _refuse_checksum(source, context)
    folder = local_path(source)
    if is_fashion_folder(folder):
        context.work.mkdir(parents=True)
        write_fashion(context.work, folder)
        folder = context.work
    return _labeled_files(folder, source, context)


def _read_local_file(source: str, context: SourceContext) -> Iterator[LabeledFile]:
    expected = context.options.sha256.lower()
    if expected and (digest := digest_file(local_path(source))) != expected:
        raise InputError(f"{source}: expected SHA-256 {expected}, found {digest}")
    return _read_file(local_path(source), source, context)


def _read_download(source: str, context: SourceContext) -> Iterator[LabeledFile]:
    return _read_file(download_cached(source, context.options), source, context)


def _read_object_store(source: str, context: SourceContext) -> Iterator[LabeledFile]:
    if is_object(source, context.options):
        return _read_download(source, context)
    _refuse_checksum(source, context)
    context.work.mkdir(parents=True)
    download_folder(source, context.work, context.options)
    return _labeled_files(context.work, source, context)


def _read_file(file: Path, source: str, context: SourceContext) -> Iterator[LabeledFile]:
    """Yield the files of an archive or a table, detected by its first bytes."""
    name = source_name(source)
    if archive_kind(file):
        context.work.mkdir(parents=True)
        extracted = extract(file, context.work, context.options, name)
        context.tally.ignored += extracted.ignored
        context.tally.warnings += extracted.warnings
        return _labeled_files(context.work, source, context)
    refuse_page_file(file)
    if is_parquet(file) or name.lower().endswith((".csv", ".csv.txt")):
        return _read_table(file, source, context)
    with open(file, "rb") as opened:
        start = opened.read(8)
    found = f"its first bytes are {start.hex(' ')}" if start else "it is empty"
    if program := next((_PACKED[magic] for magic in _PACKED if start.startswith(magic)), ""):
        found = f"found {program}; unpack it and use the folder as the source"
    raise InputError(f"{name}: expected a zip or tar archive, or a CSV or Parquet table; {found}")


def _read_table(table: Path, source: str, context: SourceContext) -> Iterator[LabeledFile]:
    remote = source if is_remote(source) or drive_id(source) else ""
    name, tally = source_name(source), context.tally
    anywhere = context.options.table_paths == "anywhere"
    form = LabelForm.of(context.options)
    if form.columns:
        tally.add_classes(map(class_label, form.columns), name, several=True)
    for row in table_rows(table, name, context.options.slices, form):
        shown = redact(row.file)
        if row.problem:
            yield LabeledFile("", shown or name, "", problem=row.problem)
            continue
        tally.add_classes(row.classes, name, several=row.labels is not None)
        if remote:
            file = file_of_remote_table(row.file, remote, name)
        else:
            path = _portable(row.file, table.parent)
            file = file_of_local_table(path, table.parent, name, anywhere=anywhere)
            if not tally.tried and not is_remote(file) and not _exists(Path(file)):
                tally.tried = file
                tally.warnings.append(
                    f"{name}: a path of the table does not exist: {row.file!r}, tried {file!r} "
                    "(paths are relative to the table)"
                )
        yield LabeledFile(
            file, shown, row.label, row.split, row.group, table=remote, slices=row.slices
        )


def _portable(file: str, folder: Path) -> str:
    """Return a path of a table, with Windows' backslashes as slashes if that exists."""
    portable = file.replace("\\", "/")
    return portable if not _exists(folder / file) and _exists(folder / portable) else file


def _exists(path: Path) -> bool:
    """Return whether a path exists; one that is too long does not."""
    try:
        return path.exists()
    except OSError:
        return False


def _labeled_files(folder: Path, source: str, context: SourceContext) -> Iterator[LabeledFile]:
    options = context.options
    for option in ("label_columns", "label_separator"):
        if getattr(options, option):
            raise InputError(f"{option}: expected a table as the source, got {source_name(source)}")
    return labeled_files(
        folder, context.tally, options.folders, source_name(source), options.slices
    )


def _refuse_checksum(source: str, context: SourceContext) -> None:
    if context.options.sha256 or context.options.mirrors:
        raise InputError(f"sha256 and mirrors apply to an archive or a table, got {source}")
