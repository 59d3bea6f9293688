"""From a source as the user names it to a stream of files with their classes.

A source is a folder of class folders, a folder already split, an archive of either, an address of
one, a table (CSV or Parquet) or a sample.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

from components.ingest.sources.archives import extract, kind_of
from components.ingest.sources.download import download_cached
from components.ingest.sources.download_retry import refuse_page, shown
from components.ingest.sources.drive import PREFIX, drive_id
from components.ingest.sources.folders import Item, Tally, folder_items
from components.ingest.sources.object_store import download_folder, is_file
from components.ingest.sources.samples import SAMPLES, is_fashion_folder, write_fashion
from components.ingest.sources.system_files import is_ignored
from components.ingest.sources.tables import is_parquet, table_rows
from regraft_core.formats.manifest_storage import digest_file
from regraft_core.formats.options import IngestOptions
from regraft_core.runtime.errors import InputError, unknown_name


@dataclass(frozen=True)
class Reading:
    """How a source is read: a folder to write in on the way, the options, what was passed over."""

    work: Path
    options: IngestOptions
    tally: Tally


Opener = Callable[[str, Reading], Iterator[Item]]


def items_of(
    sources: Sequence[str], work: Path, options: IngestOptions, tally: Tally
) -> Iterator[Item]:
    """Yield the files of all sources; several sources prefix the paths with their names.

    Args:
        sources: as the user names them.
        work: a folder for what must be written on the way; the caller removes it.
        options: for downloads and archives.
        tally: filled on the way.

    Raises:
        InputError: a source is not known, cannot be had or has no images in class folders.
    """
    if not sources:
        raise InputError("expected at least one source, got none")
    if len(sources) > 1 and (options.sha256 or options.mirrors):
        raise InputError("sha256 and mirrors belong to one source, got several sources")
    openers = [_opener(source) for source in sources]
    for number, (source, opener) in enumerate(zip(sources, openers, strict=True)):
        reading = Reading(work / f"source-{number}", options, tally)
        prefix = f"{number}-{_short(source)}/" if len(sources) > 1 else ""
        for item in opener(source, reading):
            yield item._replace(path=prefix + item.path) if prefix else item


def source_name(source: str) -> str:
    """Return a source as it may stand in a manifest: without passwords and signatures."""
    identity = drive_id(source) if not Path(source).exists() else ""
    return f"{PREFIX}{identity}" if identity else shown(source)


def _short(source: str) -> str:
    return re.split(r"[/:=]", source_name(source).rstrip("/"))[-1] or "source"


def _opener(source: str) -> Opener:
    """Choose how a source is read.

    Raises:
        InputError: nothing fits; near names are suggested.
    """
    path = Path(source)
    if source in SAMPLES:
        return _sample
    if path.is_dir():
        return _folder
    if path.is_file():
        return _local
    if drive_id(source) or re.match(r"https?://", source):
        return _downloaded
    if re.match(r"[a-z][a-z0-9+]*://", source):
        return _stored
    known = list(SAMPLES)
    if path.parent.is_dir() and ":" not in source:
        known += [str(near) for near in path.parent.iterdir() if not is_ignored(near.name)]
    raise unknown_name("source", source, known)


def _sample(source: str, reading: Reading) -> Iterator[Item]:
    _refuse_pin(source, reading)
    reading.work.mkdir(parents=True)
    SAMPLES[source](reading.work)
    return folder_items(reading.work, reading.tally)


def _folder(source: str, reading: Reading) -> Iterator[Item]:
    _refuse_pin(source, reading)
    folder = Path(source)
    if is_fashion_folder(folder):
        reading.work.mkdir(parents=True)
        write_fashion(reading.work, folder)
        folder = reading.work
    return folder_items(folder, reading.tally)


def _local(source: str, reading: Reading) -> Iterator[Item]:
    wanted = reading.options.sha256.lower()
    if wanted and (digest := digest_file(source)) != wanted:
        raise InputError(f"{source}: expected SHA-256 {wanted}, found {digest}")
    return _file(Path(source), source, reading)


def _downloaded(source: str, reading: Reading) -> Iterator[Item]:
    return _file(download_cached(source, reading.options), source, reading)


def _stored(source: str, reading: Reading) -> Iterator[Item]:
    if is_file(source, reading.options):
        return _downloaded(source, reading)
    _refuse_pin(source, reading)
    reading.work.mkdir(parents=True)
    download_folder(source, reading.work, reading.options)
    return folder_items(reading.work, reading.tally)


def _file(file: Path, source: str, reading: Reading) -> Iterator[Item]:
    """Yield the files of an archive or a table, known by its first bytes."""
    name = source_name(source)
    if kind_of(file):
        reading.work.mkdir(parents=True)
        reading.tally.ignored += extract(file, reading.work, reading.options, name)
        return folder_items(reading.work, reading.tally)
    refuse_page(file)
    if is_parquet(file) or _is_csv(name):
        return _table_items(file, source, reading)
    with open(file, "rb") as opened:
        start = opened.read(8)
    raise InputError(
        f"{name}: expected a zip or tar archive, or a CSV or Parquet table; "
        + (f"its first bytes are {start.hex(' ')}" if start else "it is empty")
    )


def _is_csv(name: str) -> bool:
    return name.lower().endswith((".csv", ".csv.txt"))


def _table_items(file: Path, source: str, reading: Reading) -> Iterator[Item]:
    for row in table_rows(file, source_name(source)):
        place = row.place
        reading.tally.classes.add(row.label)
        if "://" not in place:
            place = urljoin(source, place) if "://" in source else str(file.parent / place)
        yield Item(place, shown(row.place), row.label, row.split, row.group)


def _refuse_pin(source: str, reading: Reading) -> None:
    if reading.options.sha256 or reading.options.mirrors:
        raise InputError(f"sha256 and mirrors belong to an archive, got {source}")
