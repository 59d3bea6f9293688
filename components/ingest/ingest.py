"""The step: sources in, a dataset that can be trusted out."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.ingest.card.data_card import write_data_card
from components.ingest.catalog import BAD_REASONS, Catalog
from components.ingest.shards import content_digest, write_shards
from components.ingest.sources.folders import Tally
from components.ingest.sources.source_items import items_of, source_name
from components.ingest.splits.assignment import assign_splits, thresholds
from components.ingest.splits.duplicates import resolve_duplicates
from components.ingest.stale_folders import marked_as_running, remove_leftovers
from components.ingest.workers import (
    CHUNK,
    Looking,
    in_chunks,
    in_processes,
    measure_chunk,
    processes_of,
)
from regraft_core.formats.manifest_storage import MadeBy, staged_folder
from regraft_core.formats.manifests import SPLITS, DatasetManifest
from regraft_core.formats.options import IngestOptions
from regraft_core.runtime.errors import DataError, InputError
from regraft_core.runtime.step import Clock, log_progress
from regraft_core.runtime.version import VERSION

WORK = ".work"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What the dataset does not depend on, so that equal datasets have equal manifests.
_PLACES = {
    "processes", "cache", "timeout_s", "deadline_s", "attempts", "backoff_s", "mirrors",
}  # fmt: skip


def ingest(
    sources: Sequence[str], out: str | os.PathLike[str], options: IngestOptions
) -> DatasetManifest:
    """Read images from `sources` and write a dataset to the folder `out`.

    `out` gets `dataset.json`, `quarantine.csv`, `data_card.html` and the shards; after an error
    it gets nothing.

    Args:
        sources: folders, archives, addresses, tables, samples or recipes; see docs/ingest.md.
        out: a folder that does not exist yet, or is empty.
        options: how; the defaults suit most.

    Raises:
        InputError: a source is not known or cannot be had, `out` has content, the disk is full.
        DataError: what was read cannot be a dataset: no image, one class, too many bad files.
    """
    try:
        remove_leftovers(Path(out), WORK)
        with staged_folder(out) as folder:
            work = folder / WORK
            work.mkdir()
            try:
                with marked_as_running(work):
                    return _ingest([str(source) for source in sources], folder, work, options)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise InputError(f"cannot write to {out}: {error.strerror}") from error
    except sqlite3.OperationalError as error:
        raise InputError(f"cannot write to {out}: {error}") from error


def _ingest(
    sources: list[str], folder: Path, work: Path, options: IngestOptions
) -> DatasetManifest:
    clock = Clock()
    processes = processes_of(options.processes)
    spool = work / "spool"
    spool.mkdir()
    catalog = Catalog(work / "catalog.sqlite", create=True)
    try:
        tally = Tally()
        looking = Looking(spool, options)
        items = items_of(sources, work, options, tally)
        for number, found in enumerate(
            in_processes(measure_chunk, in_chunks(items, looking), processes)
        ):
            catalog.add_images(found.images)
            catalog.quarantine(found.bad)
            if number and number % 40 == 0:
                log_progress(f"ingest: {number * CHUNK} files read")
        catalog.index()
        duplicates = resolve_duplicates(catalog, options)
        _check_bad_share(catalog, options)
        classes = _check_classes(catalog, tally)
        warnings = [*tally.notes, *duplicates.warnings, *_place(catalog, classes, options)]
        warnings += _warnings(catalog, classes)
        catalog.index_splits()
        splits = write_shards(catalog, folder, spool, classes, processes)
        manifest = DatasetManifest(
            digest=content_digest(catalog, classes),
            made_by=MadeBy(step="ingest", version=VERSION, seconds=round(clock.seconds, 3)),
            classes=classes, splits=splits, sources=[source_name(source) for source in sources],
            conversions=_counted(catalog, "conversions"), quarantined=catalog.reasons(),
            ignored=tally.ignored, duplicates=duplicates.counts, warnings=warnings,
            options=options.model_dump(mode="json", exclude=_PLACES),
        )  # fmt: skip
        _write_quarantine(catalog, folder / "quarantine.csv")
        write_data_card(folder / "data_card.html", manifest, catalog, spool, duplicates)
        manifest.write(folder)
    finally:
        catalog.close()
    log_progress(_summary(manifest))
    return manifest


def _check_bad_share(catalog: Catalog, options: IngestOptions) -> None:
    reasons = {name: n for name, n in catalog.reasons().items() if name in BAD_REASONS}
    bad, good = sum(reasons.values()), catalog.count()
    listed = ", ".join(f"{name} {count}" for name, count in reasons.items())
    if not good:
        what = f"all {bad} files are unusable ({listed})" if bad else "found none"
        raise DataError(f"expected images, {what}")
    if bad > options.max_invalid_fraction * (bad + good):
        first = next(
            catalog.ask(
                "SELECT path, detail FROM quarantine WHERE reason IN"
                " (SELECT value FROM json_each(?)) ORDER BY path LIMIT 1",
                (json.dumps(BAD_REASONS),),
            )
        )
        raise DataError(
            f"expected at most {options.max_invalid_fraction:.1%} unusable files, found {bad} of "
            f"{bad + good}: {listed}; for instance {os.fsdecode(first[0])!r}: {first[1]}"
        )


def _check_classes(catalog: Catalog, tally: Tally) -> list[str]:
    counts = dict.fromkeys(sorted(tally.classes), 0)
    counts |= dict(catalog.ask("SELECT label, count(*) FROM images GROUP BY 1"))
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())[:20])
    if len(counts) < 2:
        raise DataError(f"expected at least two classes, found {len(counts)}: {listed}")
    empty = [name for name, count in sorted(counts.items()) if not count]
    if empty:
        raise DataError(
            f"expected usable images in each class, found none in {', '.join(empty[:20])} "
            f"(images: {listed})"
        )
    return sorted(counts)


def _place(catalog: Catalog, classes: list[str], options: IngestOptions) -> list[str]:
    """Decide the split of each image; return what to warn of.

    Raises:
        DataError: a class has fewer images than the minimum in a split.
    """
    warnings = []
    have = {given for (given,) in catalog.ask("SELECT DISTINCT given FROM images")}
    if have != {""}:
        # Near copies of a given image were given its split.
        changed = "UPDATE images SET split = given WHERE given <> '' AND split <> given"
        catalog.change(changed, [()])
    if "" in have:
        _draw(catalog, "given = ''", classes, options, {"validation", "test"})
    elif missing := {"validation", "test"} - have:
        warnings.append(f"the source has no {' and no '.join(sorted(missing))} split; drawn "
                        "from its train split")  # fmt: skip
        _draw(catalog, "given = 'train'", classes, options, missing)
    counts = {split: dict.fromkeys(classes, 0) for split in SPLITS}
    for split, label, count in catalog.ask(
        "SELECT split, label, count(*) FROM images GROUP BY 1, 2"
    ):
        counts[split][label] = count
    for split, by_class in counts.items():
        short = {name: n for name, n in by_class.items() if n < options.min_per_class}
        if short:
            listed = ", ".join(f"{name} {n}" for name, n in list(short.items())[:20])
            raise DataError(
                f"expected at least {options.min_per_class} images of each class in the "
                f"{split} split, found {listed}{_remedy(split)}"
            )
    return warnings


def _remedy(split: str) -> str:
    options = "--min-per-class" if split == "train" else f"--{split}-fraction"
    return f"; add images, or change {options}"


def _draw(
    catalog: Catalog, condition: str, classes: list[str], options: IngestOptions, wanted: set[str]
) -> None:
    """Split the images of a condition by their keys; only `wanted` splits are taken out."""
    validation = options.validation_fraction if "validation" in wanted else 0.0
    test = options.test_fraction if "test" in wanted else 0.0
    catalog.draw(condition, thresholds(validation, test))
    groups = f"SELECT count(*) FROM images WHERE {condition} GROUP BY label, split"  # noqa: S608
    counts = [count for (count,) in catalog.ask(groups)]
    if len(counts) == len(classes) * (1 + len(wanted)) and min(counts) >= options.min_per_class:
        return
    index = {name: number for number, name in enumerate(classes)}
    rows = list(catalog.ask(f"SELECT number, key, label, split FROM images WHERE {condition}"))  # noqa: S608
    splits = assign_splits(
        np.array([key for _, key, _, _ in rows], np.int64),
        np.array([index[label] for _, _, label, _ in rows], np.int64),
        minimum=options.min_per_class, validation_fraction=validation, test_fraction=test,
    )  # fmt: skip
    drawn = [(SPLITS[split], row[0], row[3]) for split, row in zip(splits, rows, strict=True)]
    catalog.change(
        "UPDATE images SET split = ? WHERE number = ?",
        [(split, number) for split, number, before in drawn if split != before],
    )


def _counted(catalog: Catalog, column: str) -> dict[str, int]:
    """Count the words of a comma-separated column."""
    counts: dict[str, int] = {}
    for words, count in catalog.ask(
        f"SELECT {column}, count(*) FROM images WHERE {column} <> '' GROUP BY 1"  # noqa: S608
    ):
        for word in words.split(","):
            counts[word] = counts.get(word, 0) + count
    return dict(sorted(counts.items()))


def _warnings(catalog: Catalog, classes: list[str]) -> list[str]:
    """Return what deserves a look: imbalance, tiny classes, dark or empty images."""
    counts = dict(catalog.ask("SELECT label, count(*) FROM images GROUP BY 1"))
    most, least = (
        max(counts, key=lambda c: (counts[c], c)),
        min(counts, key=lambda c: (counts[c], c)),
    )
    warnings = []
    if counts[most] >= 5 * counts[least]:
        warnings.append(
            f"the classes are unbalanced: {most} has {counts[most]} images, "
            f"{least} has {counts[least]}"
        )
    tiny = [name for name in classes if counts[name] < 30]
    if tiny:
        warnings.append(f"classes with fewer than 30 images: {', '.join(tiny[:10])}"
                        + (f" and {len(tiny) - 10} more" if len(tiny) > 10 else ""))  # fmt: skip
    notes = _counted(catalog, "notes")
    if notes.get("dark"):
        warnings.append(f"nearly black images: {notes['dark']}")
    if notes.get("flat"):
        warnings.append(f"images of nearly one color: {notes['flat']}")
    return warnings


def _write_quarantine(catalog: Catalog, path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "reason", "detail"))
        for name, reason, detail in catalog.ask(
            "SELECT path, reason, detail FROM quarantine ORDER BY path, reason, detail"
        ):
            writer.writerow((os.fsdecode(name), reason, detail))


def _summary(manifest: DatasetManifest) -> str:
    parts = ", ".join(f"{name} {split.count}" for name, split in manifest.splits.items())
    left_out = sum(manifest.quarantined.values())
    return (
        f"ingest: {len(manifest.classes)} classes; {parts}; {left_out} left out, "
        f"{manifest.ignored} ignored"
    )
