"""The files of a source and their classes.

A source is a folder of class folders or of a form of data (`folder_forms.py`), an archive of it,
a pattern of shards, a table, an annotation file of COCO, a URL of one, or a sample.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from components.ingest.sources.archives import (
    START_BYTES,
    archive_kind,
    extract,
    kind_of_start,
)
from components.ingest.sources.bucket_folder import copy_names, with_urls
from components.ingest.sources.coco import coco_images
from components.ingest.sources.download import download_cached
from components.ingest.sources.embedded_tables import has_embedded_images
from components.ingest.sources.folder_forms import find_form
from components.ingest.sources.folders import LabeledFile, Tally, labeled_files
from components.ingest.sources.html_pages import refuse_page_file
from components.ingest.sources.labels import class_label
from components.ingest.sources.object_store import find_object
from components.ingest.sources.remote_stream import open_remote
from components.ingest.sources.samples import SAMPLES, is_fashion_folder, write_fashion
from components.ingest.sources.shard_folders import shard_images, shard_split
from components.ingest.sources.source_context import SourceContext
from components.ingest.sources.system_files import is_system_file
from components.ingest.sources.table_files import file_of_local_table, file_of_remote_table
from components.ingest.sources.tables import is_table, table_rows
from components.ingest.sources.videos import describe_video, is_video
from components.ingest.sources.web_dataset import is_web_dataset, samples
from regraft_core.formats.manifest_storage import digest_file
from regraft_core.formats.options.ingest import IngestOptions
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
from regraft_core.sources.shard_patterns import shards_of

_PACKED = {
    b"Rar!": "a rar archive", b"7z\xbc\xaf": "a 7z archive", b"MZ": "a program of Windows",
    b"(\xb5/\xfd": "a zstd archive", b"MSCF": "a cab archive",
}  # fmt: skip


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
        name = source_name(source)
        context = SourceContext(work / f"source-{number}", options, tally, name)
        prefix = f"{number}-{_short_name(source)}/" if len(sources) > 1 else ""
        indicated = context.columns.form.columns
        if indicated:
            tally.add_classes(map(class_label, indicated), name, several=True)
        for file in _of_one_kind(reader(source, context)):
            if not file.problem:
                classes = (file.label,) if file.labels is None else file.labels
                tally.add_classes(classes, name, several=file.labels is not None)
                tally.has_groups |= bool(file.group)
            if options.crops and not (file.crop or file.problem):
                raise InputError(f"{name}: crops: expected boxes of COCO or Pascal VOC, found none")
            yield file._replace(path=prefix + file.path) if prefix else file


def _of_one_kind(files: Iterable[LabeledFile]) -> Iterator[LabeledFile]:
    """Yield the files of a source; the first label decides whether images have one or several.

    Files of the other kind get a problem.
    """
    several: bool | None = None
    for file in files:
        found = file.labels is not None
        if file.problem or several in (None, found):
            several = several if file.problem else found
            yield file
            continue
        expected = "a list of labels" if several else "one label"
        problem = f"expected {expected}, as of the images before, got {file.label!r:.80}"
        yield LabeledFile("", file.path, "", problem=problem)


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
    if shards_of(source):
        return _read_shards
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
    return _folder_files(context.work, context)


def _read_folder(source: str, context: SourceContext) -> Iterator[LabeledFile]:
    _refuse_checksum(source, context)
    folder = local_path(source)
    if is_fashion_folder(folder):
        context.work.mkdir(parents=True)
        write_fashion(context.work, folder)
        folder = context.work
    return _folder_files(folder, context)


def _read_local_file(source: str, context: SourceContext) -> Iterator[LabeledFile]:
    expected = context.options.sha256.lower()
    if expected and (digest := digest_file(local_path(source))) != expected:
        raise InputError(f"{source}: expected SHA-256 {expected}, found {digest}")
    return _read_file(local_path(source), source, context)


def _read_download(source: str, context: SourceContext) -> Iterator[LabeledFile]:
    return _read_file(download_cached(source, context.options), source, context)


def _read_object_store(source: str, context: SourceContext) -> Iterator[LabeledFile]:
    if find_object(source, context.options):
        return _read_download(source, context)
    _refuse_checksum(source, context)
    context.work.mkdir(parents=True)
    copy_names(source, context.work, context.options)
    return with_urls(_folder_files(context.work, context), source, context.work)


def _read_shards(source: str, context: SourceContext) -> Iterator[LabeledFile]:
    """Yield the images of the shards that a pattern names, one shard after the other.

    Remote tars are read as they arrive; other remote shards are downloaded, because tables are not
    read from start to end.
    """
    _refuse_checksum(source, context)
    for shard in shards_of(source):
        name = source_name(shard)
        split = shard_split(name)
        on_drive = bool(drive_id(shard))
        if is_remote(shard) and not on_drive:
            with open_remote(shard, context.options) as stream:
                if kind_of_start(stream.peek(START_BYTES)) == "tar":
                    yield from samples(stream, name, split, context.options)
                    continue
        is_local = not (is_remote(shard) or on_drive)
        file = local_path(shard) if is_local else download_cached(shard, context.options)
        if not file.is_file():
            raise InputError(f"{context.name}: expected the shard {shard}, found none")
        yield from shard_images(file, name, split, context)


def _read_file(file: Path, source: str, context: SourceContext) -> Iterator[LabeledFile]:
    """Yield the files of an archive, a table, a shard or an annotation file.

    Which it is, its first bytes show or, for text, the name of the source.
    """
    name = context.name
    kind = archive_kind(file)
    if kind == "tar" and is_web_dataset(file, name, context.options):
        return shard_images(file, name, shard_split(name), context)
    if kind:
        context.work.mkdir(parents=True)
        extracted = extract(file, context.work, context.options, name)
        context.tally.ignored += extracted.ignored
        context.tally.warnings += extracted.warnings
        return _folder_files(context.work, context)
    refuse_page_file(file)
    if has_embedded_images(file, name):
        return shard_images(file, name, shard_split(name), context)
    if is_table(file, name):
        return _read_table(file, source, context)
    if name.lower().endswith(".json"):
        if is_remote(source) or drive_id(source):
            raise InputError(f"{name}: expected an annotation file in the folder of its images; "
                             "use the folder as the source")  # fmt: skip
        return coco_images(file, context)
    with open(file, "rb") as opened:
        start = opened.read(8)
    found = f"its first bytes are {start.hex(' ')}" if start else "it is empty"
    if program := next((_PACKED[magic] for magic in _PACKED if start.startswith(magic)), ""):
        found = f"found {program}; unpack it and use the folder as the source"
    if is_video(name):
        raise InputError(f"source: {describe_video(name)}")
    raise InputError(
        f"{name}: expected a zip or tar archive, a table (CSV, JSON lines, Parquet or Arrow) or "
        f"COCO's JSON; {found}"
    )


def _read_table(table: Path, source: str, context: SourceContext) -> Iterator[LabeledFile]:
    remote = source if is_remote(source) or drive_id(source) else ""
    name, tally = context.name, context.tally
    anywhere = context.options.table_paths == "anywhere"
    for row in table_rows(table, name, context.columns):
        shown = redact(row.file)
        if row.problem:
            yield LabeledFile("", shown or name, "", problem=row.problem)
            continue
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
            file,
            shown,
            row.label,
            row.split,
            row.group,
            table=remote,
            slices=row.slices,
            labels=row.labels,
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


def _folder_files(folder: Path, context: SourceContext) -> Iterator[LabeledFile]:
    """Yield the files of a folder: of a form of data or, by default, of class folders."""
    options = context.options
    if options.folders == "auto" and (form := find_form(folder)):
        inner, reader = form
        return reader(inner, context)
    slices = options.slices
    replace(context, options=options.model_copy(update={"slices": ()})).refuse_columns()
    return labeled_files(folder, context.tally, options.folders, context.name, slices)


def _refuse_checksum(source: str, context: SourceContext) -> None:
    if context.options.sha256 or context.options.mirrors:
        raise InputError(f"sha256 and mirrors apply to an archive or a table, got {source}")
