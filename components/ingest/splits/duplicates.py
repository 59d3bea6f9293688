"""Duplicates and what is done about them, so that none leaks from one split to another.

Exact duplicates have the same SHA-256; one is kept. Near duplicates are joined to groups, most
similar pairs first, and a group stays in one split. The size of a group is limited, so that a chain
of similar images never takes a whole class; pairs that would exceed the limit are reported. If the
source has splits, copies in several of them are dropped (`copies.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.ingest.catalog import Catalog, Duplicate
from components.ingest.splits.copies import find_copies
from components.ingest.splits.near_duplicates import NearPair, find_near_pairs
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import DataError

MAX_GROUP_FRACTION, MIN_GROUP_LIMIT = 0.01, 16
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
        report.examples = [(pair.first, pair.second) for pair in pairs[:EXAMPLES]]
        report.counts["near_pairs"] = len(pairs)
        _warn_of_labels(catalog, pairs, report)
        if options.near_duplicates == "group":
            limit = _join(catalog, pairs, report)
            groups = max(groups, _follow_groups(catalog))
            copies = find_copies(catalog, pairs, limit, spool)
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
    excluded: list[tuple[bytes, str, str]] = []
    numbers: list[int] = []
    groups = leaking = 0
    for group in catalog.exact_duplicates():
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
            else:
                reason, detail = "exact-duplicate", f"same bytes as {_text(kept.path)}"
            excluded.append((image.path, reason, detail))
            numbers.append(image.number)
    catalog.quarantine(excluded)
    catalog.remove_images(numbers)
    report.counts["exact_sets"] = groups
    report.counts["exact_dropped"] = len(excluded)
    return leaking, sum(reason == "leakage" for _, reason, _ in excluded)


def _warn_of_labels(catalog: Catalog, pairs: Sequence[NearPair], report: DuplicateReport) -> None:
    """Count the pairs with two labels; warn of them with one example."""
    labels = catalog.labels({number for pair in pairs for number in pair[1:]})
    conflicts = [pair for pair in pairs if labels[pair.first] != labels[pair.second]]
    report.counts["near_label_conflicts"] = len(conflicts)
    if conflicts:
        listed = " and ".join(
            f"{_text(catalog.path_of(number))} ({labels[number]})" for number in conflicts[0][1:]
        )
        report.warnings.append(
            f"{len(conflicts)} near-duplicate pairs have two labels, for instance {listed}"
        )


def _join(catalog: Catalog, pairs: Sequence[NearPair], report: DuplicateReport) -> int:
    """Give the images of a group one key: the lowest, so that a test image stays in test.

    Images that the source has put into one group have one key from the start, and count as one.

    Returns:
        The limit of the size of a group.
    """
    limit = max(MIN_GROUP_LIMIT, int(MAX_GROUP_FRACTION * catalog.count()))
    keys = catalog.keys({number for pair in pairs for number in pair[1:]})
    size = catalog.count_by_key(set(keys.values()))
    joined = dict.fromkeys(size, 1)
    parent: dict[int, int] = {}

    def root(key: int) -> int:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    ungrouped = 0
    for _, first, second in pairs:
        low, high = sorted((root(keys[first]), root(keys[second])))
        if low == high:
            continue
        total = joined[low] + joined[high]
        if total > limit:
            ungrouped += 1
            continue
        parent[high], joined[low] = low, total
        size[low] += size[high]
    changed = [(root(key), key) for key in list(parent) if root(key) != key]
    catalog.change_keys(changed)
    groups = {key for key, _ in changed}
    report.counts["near_groups"] = len(groups)
    report.counts["near_grouped"] = sum(size[key] for key in groups)
    report.counts["near_ungrouped"] = ungrouped
    if ungrouped:
        report.warnings.append(
            f"{ungrouped} near-duplicate pairs were not grouped because their groups would exceed "
            f"{limit} images; they may be in two splits"
        )
    return limit


def _repair_groups(catalog: Catalog, options: IngestOptions) -> tuple[int, int]:
    """Drop images of groups in several splits of the source, except those of the test split.

    These are the groups of a table. Images without a split follow their group.

    Returns:
        The numbers of such groups and of dropped images.
    """
    excluded: list[tuple[bytes, str, str]] = []
    numbers: list[int] = []
    leaking = 0
    for group in catalog.groups_across_splits():
        leaking += _is_leaking(group)
        kept = group[0]
        for image in group:
            if image.source_split not in ("", kept.source_split):
                detail = f"same group as {_text(kept.path)} in {kept.source_split}"
                excluded.append((image.path, "leakage", detail))
                numbers.append(image.number)
    if options.leakage != "repair":
        return leaking, 0
    catalog.quarantine(excluded)
    catalog.remove_images(numbers)
    return leaking, len(numbers)


def _follow_groups(catalog: Catalog) -> int:
    """Give images without a split that of their group; return the number of leaking groups."""
    leaking = 0
    splits: list[tuple[str, int]] = []
    for group in catalog.groups_across_splits():
        leaking += _is_leaking(group)
        splits += [
            (group[0].source_split, image.number) for image in group if not image.source_split
        ]
    catalog.set_source_splits(splits)
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
