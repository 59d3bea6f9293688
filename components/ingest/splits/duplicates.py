"""Duplicates and what is done about them, so that none leaks from one split to another.

Exact duplicates have the same SHA-256; one is kept. Near duplicates are joined to groups, each in
one split (`near_groups.py`). If the source has splits, copies in several of them are dropped
(`copies.py`).
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.columns import read_integers, read_words
from components.ingest.catalog.duplicates import (
    exact_duplicates,
    groups_across_splits,
    image_with_number,
    set_source_splits,
)
from components.ingest.catalog.rows import Duplicate
from components.ingest.splits.copies import find_copies
from components.ingest.splits.near_duplicates import find_near_pairs
from components.ingest.splits.near_groups import NearGroups, join_near_pairs
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import DataError

EXAMPLES = 24


@dataclass
class DuplicateReport:
    """Counts for the manifest, warnings, and examples (pairs of numbers) for the data card."""

    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    examples: list[tuple[int, int]] = field(default_factory=list)


def resolve_duplicates(
    catalog: Catalog, options: IngestOptions, spool: Path | None = None
) -> DuplicateReport:
    """Drop exact duplicates, quarantine conflicting labels, group near duplicates, repair leakage.

    Args:
        catalog: all images.
        options: what to do about duplicates.
        spool: the folder of spool files; without it, only small images are compared by pixels.

    Raises:
        DataError: duplicates are in several splits of the source and `options.leakage` is `fail`.
    """
    report = DuplicateReport()
    leaking, exact = _drop_exact(catalog, report)
    groups, dropped = _repair_groups(catalog, options)
    kept = 0
    if options.near_duplicates != "off":
        pairs = find_near_pairs(catalog)
        report.examples = pairs[["first", "second"]][:EXAMPLES].tolist()
        report.counts["near_pairs"] = len(pairs)
        _warn_of_labels(catalog, pairs, report)
        if options.near_duplicates == "group":
            near_groups = join_near_pairs(catalog, pairs)
            _describe_groups(near_groups, report)
            groups = max(groups, _follow_groups(catalog))
            copies = find_copies(catalog, pairs, near_groups.limit, spool)
            kept = copies.kept
            if options.leakage == "repair":
                catalog.quarantine(copies.excluded)
                catalog.remove_images(copies.numbers)
                dropped += len(copies.numbers)
    report.counts["leaking"] = leaking + groups
    report.counts["leaking_dropped"] = dropped
    report.counts["leaking_kept"] = kept
    _describe_leakage(report, options, exact)
    return report


def _drop_exact(catalog: Catalog, report: DuplicateReport) -> tuple[int, int]:
    """Keep one of each group of equal files.

    Returns:
        The number of groups in several splits, and of their copies in other splits.
    """
    groups = leaking = copies = 0
    numbers = array("q")

    def excluded() -> Iterator[tuple[bytes, str, str]]:
        nonlocal groups, leaking, copies
        for group in exact_duplicates(catalog):
            groups += 1
            leaking += _is_leaking(group)
            kept = group[0]
            labels = sorted({image.label for image in group})
            for image in group if len(labels) > 1 else group[1:]:
                if len(labels) > 1:
                    reason, detail = "label-conflict", f"same bytes in {' and '.join(labels)}"
                elif image.source_split != kept.source_split:
                    reason = "leakage"
                    detail = f"same bytes as {_text(kept.path)} in {kept.source_split}"
                    copies += 1
                else:
                    reason, detail = "exact-duplicate", f"same bytes as {_text(kept.path)}"
                numbers.append(image.number)
                yield image.path, reason, detail

    catalog.quarantine(excluded())
    catalog.remove_images(numbers)
    report.counts["exact_sets"] = groups
    report.counts["exact_dropped"] = len(numbers)
    return leaking, copies


def _warn_of_labels(catalog: Catalog, pairs: NDArray[np.void], report: DuplicateReport) -> None:
    """Count the pairs with two labels; warn of them with one example."""
    numbers, labels = read_integers(catalog, "number"), read_words(catalog, "label").codes
    first, second = (labels[np.searchsorted(numbers, pairs[one])] for one in ("first", "second"))
    conflicts = pairs[first != second]
    report.counts["near_label_conflicts"] = len(conflicts)
    if len(conflicts):
        examples = [image_with_number(catalog, int(conflicts[0][i])) for i in ("first", "second")]
        listed = " and ".join(f"{_text(image.path)} ({image.label})" for image in examples)
        report.warnings.append(
            f"{len(conflicts)} near-duplicate pairs have two labels, for instance {listed}"
        )


def _describe_groups(groups: NearGroups, report: DuplicateReport) -> None:
    """Count the groups; warn of pairs that are not in one."""
    report.counts["near_groups"] = groups.groups
    report.counts["near_grouped"] = groups.images
    report.counts["near_ungrouped"] = groups.ungrouped
    if groups.ungrouped:
        report.warnings.append(
            f"{groups.ungrouped} near-duplicate pairs were not grouped because their groups would "
            f"exceed {groups.limit} images; they may be in two splits"
        )


def _repair_groups(catalog: Catalog, options: IngestOptions) -> tuple[int, int]:
    """Drop images of groups in several splits of the source, except those of the test split.

    These are the groups of a table. Images without a split follow their group.

    Returns:
        The numbers of such groups and of dropped images.
    """
    leaking = 0
    numbers = array("q")

    def excluded() -> Iterator[tuple[bytes, str, str]]:
        nonlocal leaking
        for group in groups_across_splits(catalog):
            leaking += _is_leaking(group)
            kept = group[0]
            for image in group:
                if image.source_split not in ("", kept.source_split):
                    numbers.append(image.number)
                    detail = f"same group as {_text(kept.path)} in {kept.source_split}"
                    yield image.path, "leakage", detail

    if options.leakage != "repair":
        deque(excluded(), maxlen=0)
        return leaking, 0
    catalog.quarantine(excluded())
    catalog.remove_images(numbers)
    return leaking, len(numbers)


def _follow_groups(catalog: Catalog) -> int:
    """Give images without a split that of their group; return the number of leaking groups."""
    leaking = 0
    splits: list[tuple[str, int]] = []
    for group in groups_across_splits(catalog):
        leaking += _is_leaking(group)
        splits += [
            (group[0].source_split, image.number) for image in group if not image.source_split
        ]
    set_source_splits(catalog, splits)
    return leaking


def _describe_leakage(report: DuplicateReport, options: IngestOptions, exact: int) -> None:
    """Warn of duplicates in several splits, with the numbers and the option that decides.

    Raises:
        DataError: there are some, and `options.leakage` is `fail`.
    """
    counts = report.counts
    if not counts["leaking"]:
        return
    text = f"{counts['leaking']} sets of duplicates were in several splits of the source"
    if options.leakage == "fail":
        raise DataError(f"{text}; expected none (--leakage fail)")
    dropped, kept = counts["leaking_dropped"], counts["leaking_kept"]
    if options.leakage == "report":
        report.warnings.append(
            f"{text}; {exact} exact copies were dropped outside the test split, near duplicates "
            "were kept (--leakage report)"
        )
        return
    if exact or dropped:
        report.warnings.append(
            f"{text}; {exact} exact copies and {dropped} near duplicates were dropped outside the "
            "test split (--leakage report keeps near duplicates)"
        )
    if kept:
        report.warnings.append(
            f"{kept} images similar to one of another split were kept, because they are of another "
            "class, or too many to be copies, as of one scene; if they are copies, the test "
            "accuracy is too high (--leakage fail stops instead)"
        )


def _is_leaking(group: Sequence[Duplicate]) -> bool:
    return len({image.source_split for image in group if image.source_split}) > 1


def _text(path: bytes) -> str:
    return path.decode("utf-8", "replace")
