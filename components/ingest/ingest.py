"""The step: from sources of labeled images to a dataset of validated, split images."""

from __future__ import annotations

import csv
import errno
import io
import os
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from components.ingest.card.data_card import write_data_card
from components.ingest.card.label_counts import describe_lists
from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.counts import (
    count_by_class,
    count_by_reason,
    count_conversions,
    count_images,
    count_labels_per_image,
    count_notes,
)
from components.ingest.checks.image_validation import READ_FORMATS
from components.ingest.crops import INVALID_BOX
from components.ingest.fixes import DROPPED, apply_fixes, describe_applied, describe_unapplied
from components.ingest.image_reader import chunk_tasks, data_bytes, read_chunk
from components.ingest.shards import content_digest, write_shards
from components.ingest.slices import count_slices
from components.ingest.sources.folder_listing import shorten
from components.ingest.sources.folders import Tally
from components.ingest.sources.labels import describe_confusable
from components.ingest.sources.source_files import source_files, source_name
from components.ingest.sources.videos import describe_video, is_video
from components.ingest.splits.assignment import assign_catalog
from components.ingest.splits.duplicates import resolve_duplicates
from components.ingest.stale_folders import remove_stale_folders, running_lock
from regraft_core.formats.champion_classes import find_champion_classes
from regraft_core.formats.fixes import FIXES_FILE, read_fixes, write_fixes
from regraft_core.formats.manifest_storage import MadeBy, staged_folder
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.several_labels import check_label_options
from regraft_core.parallel.executor import Executor
from regraft_core.parallel.local_processes import LocalProcesses
from regraft_core.runtime.errors import DataError, InputError, UnavailableError
from regraft_core.runtime.printable import neutral_cell
from regraft_core.runtime.safe_files import replaced_file
from regraft_core.runtime.step_reports import Clock, ProgressReporter, log_progress
from regraft_core.runtime.version import VERSION

WORK = ".work"
INVALID_REASONS = (
    "missing-file", "unreadable", "empty-file", "not-an-image", "unsupported-format", "damaged",
    "too-many-pixels", "label-conflict", "invalid-row", INVALID_BOX,
)  # fmt: skip
"""Reasons that count as invalid files; the others (duplicates, leakage) only drop a copy."""
_UNBALANCED_RATIO, _FEW_IMAGES = 5, 30
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Options that the dataset does not depend on, so that equal datasets have equal manifests.
_UNRELATED_OPTIONS = {
    "processes", "mirrors", "download_cache", "download_timeout_s", "download_deadline_s",
    "download_attempts", "download_backoff_s", "fixes",
}  # fmt: skip


def ingest(
    sources: Sequence[str], out: str | os.PathLike[str], options: IngestOptions, champion: str = "",
    executor: Executor | None = None,
) -> DatasetManifest:  # fmt: skip
    """Read images from `sources` and write a dataset to the folder `out`.

    `out` gets `dataset.json`, `quarantine.csv`, `data_card.html` and the shards; after an error,
    it is not created.

    Args:
        sources: folders, archives, URLs, tables or samples; see docs/ingest.md.
        out: a folder that does not exist or is empty.
        options: the options of the step.
        champion: folder or URI of the champion, whose classes must be the same; may be empty.
        executor: reads images and writes shards; by default processes of this machine.

    Raises:
        InputError: a source or the fixes are unknown or cannot be read, no fix is of these images,
            `out` is not empty, the disk is full, or the champion has other classes.
        DataError: the images are not a dataset: none, one class, too many invalid files.
    """
    try:
        remove_stale_folders(Path(out), WORK)
        with staged_folder(out) as folder:
            work = folder / WORK
            work.mkdir()
            try:
                with running_lock(work):
                    named = [str(source) for source in sources]
                    workers = executor or LocalProcesses(options.processes)
                    return _ingest(named, folder, Path(out), options, champion, workers)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        if error.errno in _DISK_FULL or error.filename is None:
            raise UnavailableError(f"cannot write to {out}: {error.strerror or error}") from error
        path = shorten(os.fsdecode(error.filename))
        raise InputError(f"cannot read or write {path}: {error.strerror}") from error
    except sqlite3.OperationalError as error:
        raise UnavailableError(f"cannot write to {out}: {error}") from error


def _ingest(
    sources: list[str], folder: Path, out: Path, options: IngestOptions, champion: str,
    executor: Executor,
) -> DatasetManifest:  # fmt: skip
    """Make the dataset in the temporary `folder`, which becomes `out`."""
    clock, work = Clock(), folder / WORK
    fixes = read_fixes(options.fixes) if options.fixes else None  # invalid ones fail at once
    spool = work / "spool"
    spool.mkdir()
    catalog = Catalog(work / "catalog.sqlite", create=True)
    try:
        tally = Tally()
        tasks = chunk_tasks(source_files(sources, work, options, tally), spool, options)
        progress, repeated = ProgressReporter("ingest: files read", total=None), 0
        for result in executor.map(read_chunk, tasks, "ingest", data_bytes):
            catalog.add_images(result.images)
            catalog.quarantine(result.invalid)
            progress.advance(len(result.images) + len(result.invalid))
            repeated += result.repeated
        if repeated:
            log_progress(f"ingest: {repeated} requests for images failed and were repeated")
        several = bool(tally.several)
        if several:
            check_label_options(options, "several")
            catalog.use_label_lists()
        applied = apply_fixes(catalog, fixes) if fixes else None
        duplicates = resolve_duplicates(catalog, options, spool)
        _check_invalid_fraction(catalog, options, tally, out)
        classes = _check_classes(catalog, tally)
        if its := find_champion_classes(champion):
            its.check(classes, "several" if several else "one")
        slices = count_slices(catalog, options.slices)
        warnings = [*tally.warnings, *describe_confusable(classes), *duplicates.warnings]
        warnings += describe_unapplied(applied) if applied else []
        warnings += assign_catalog(
            catalog, classes, options, several=several, has_groups=tally.has_groups
        )
        warnings += _describe_weaknesses(catalog)
        if several:
            warnings += describe_lists(catalog)
        catalog.index_splits()
        splits = write_shards(catalog, folder, spool, classes, executor, several=several)
        manifest = DatasetManifest(
            digest=content_digest(catalog, classes, options.slices, several=several),
            made_by=MadeBy(step="ingest", version=VERSION, seconds=round(clock.seconds, 3)),
            classes=classes, labels_per_image="several" if several else "one", splits=splits,
            sources=[source_name(source) for source in sources],
            conversions=count_conversions(catalog), quarantined=count_by_reason(catalog),
            ignored=tally.ignored, duplicates=duplicates.counts, warnings=warnings, slices=slices,
            fixes=applied,
            options=options.model_dump(mode="json", exclude=_UNRELATED_OPTIONS),
        )  # fmt: skip
        _write_quarantine(catalog, folder / "quarantine.csv")
        if fixes:
            write_fixes(folder / FIXES_FILE, fixes.fixes.values())
        write_data_card(folder / "data_card.html", manifest, catalog, spool, duplicates)
        manifest.write(folder)
    finally:
        catalog.close()
    log_progress(_summary(manifest))
    log_progress(f"ingest: classes: {list_names(manifest.classes)}")
    if applied:
        log_progress(f"ingest: {describe_applied(applied)}")
    for warning in warnings:
        log_progress(f"ingest: warning: {warning}")
    return manifest


def _check_invalid_fraction(
    catalog: Catalog, options: IngestOptions, tally: Tally, out: Path
) -> None:
    """Check that there are images, and not too many invalid files.

    Raises:
        DataError: otherwise; the list of the invalid files is kept beside the output.
    """
    counts = {name: n for name, n in count_by_reason(catalog).items() if name in INVALID_REASONS}
    invalid, valid = sum(counts.values()), count_images(catalog)
    if valid and invalid <= options.max_invalid_fraction * (invalid + valid):
        return
    if not valid and not invalid:
        found = f"found none, and {tally.ignored} other files" if tally.example else "found none"
        example = f", for instance {tally.example}" if tally.example else ""
        if is_video(tally.example):
            raise DataError(f"expected images, {found}; {describe_video(tally.example)}")
        raise DataError(f"expected images, {found}{example}; ingest reads {READ_FORMATS}")
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    path, _, detail = next(row for row in catalog.quarantined() if row[1] in INVALID_REASONS)
    example = f"for instance {os.fsdecode(path)!r}: {detail}"
    if tally.tried:
        example += f"; tried {tally.tried!r}, as paths are relative to the table"
    kept = out.with_name(f"{out.name}.quarantine.csv")
    _write_quarantine(catalog, kept)
    if not valid:
        if not {"label-conflict", "invalid-row"}.issuperset(counts):
            example += f"; ingest reads {READ_FORMATS}"
        raise DataError(
            f"expected images, all {invalid} files are invalid: {listed}; {example}; all are "
            f"listed in {kept}"
        )
    raise DataError(
        f"expected at most {options.max_invalid_fraction:.1%} invalid files, found {invalid} "
        f"of {invalid + valid}: {listed}; {example}; all are listed in {kept}; to go on without "
        "them, raise --max-invalid-fraction"
    )


def _check_classes(catalog: Catalog, tally: Tally) -> list[str]:
    counts = dict.fromkeys(sorted(tally.classes), 0) | count_by_class(catalog)
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())[:20]) or "none"
    # One label is a question of yes or no if some images are without it.
    has_others = bool(counts and tally.several and count_labels_per_image(catalog).get(0))
    if len(counts) < 2 and not has_others:
        remedy = (
            "; each folder of the source is a class: if the folders of the classes are in one "
            "folder, use that folder"
        )
        if tally.several:
            remedy = "; one is enough if there are images without it, whose lists are empty"
        raise DataError(f"expected at least two classes, found {len(counts)}: {listed}{remedy}")
    empty = [name for name, count in sorted(counts.items()) if not count]
    if empty:
        raise DataError(
            f"expected valid images in each class, found none in {', '.join(empty[:20])} "
            f"(images: {listed})"
        )
    return sorted(counts)


def _describe_weaknesses(catalog: Catalog) -> list[str]:
    """Return warnings of unbalanced and small classes, and of dark or empty images."""
    counts = count_by_class(catalog)
    largest = max(counts, key=lambda name: (counts[name], name))
    smallest = min(counts, key=lambda name: (counts[name], name))
    warnings = []
    if counts[largest] >= _UNBALANCED_RATIO * counts[smallest]:
        warnings.append(
            f"the classes are unbalanced: {largest} has {counts[largest]} images, "
            f"{smallest} has {counts[smallest]}"
        )
    small = [name for name, count in sorted(counts.items()) if count < _FEW_IMAGES]
    if small:
        more = f" and {len(small) - 10} more" if len(small) > 10 else ""
        warnings.append(
            f"classes with fewer than {_FEW_IMAGES} images: {', '.join(small[:10])}{more}"
        )
    notes = count_notes(catalog)
    if notes.get("dark"):
        warnings.append(f"nearly black images: {notes['dark']}")
    if notes.get("flat"):
        warnings.append(f"images of nearly one color: {notes['flat']}")
    return warnings


def _write_quarantine(catalog: Catalog, path: Path) -> None:
    with replaced_file(path) as file:
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("path", "reason", "detail"))
        for name, reason, detail in catalog.quarantined():
            writer.writerow(map(neutral_cell, (os.fsdecode(name), reason, detail)))
        text.detach()  # writes what is buffered, and leaves the file open


def _summary(manifest: DatasetManifest) -> str:
    splits = ", ".join(f"{name} {split.count}" for name, split in manifest.splits.items())
    invalid = sum(manifest.quarantined.get(reason, 0) for reason in INVALID_REASONS)
    dropped = manifest.quarantined.get(DROPPED, 0)
    copies = sum(manifest.quarantined.values()) - invalid - dropped
    excluded = f"{invalid + copies + dropped} excluded"
    if copies or dropped:
        in_review = f", {dropped} in review" if dropped else ""
        excluded += f" ({invalid} invalid, {copies} copies{in_review})"
    return (
        f"ingest: {len(manifest.classes)} classes; {splits}; {excluded}, {manifest.ignored} ignored"
    )


def list_names(names: Sequence[str], limit: int = 20) -> str:
    """Return the first names in one line, with the number of the others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
