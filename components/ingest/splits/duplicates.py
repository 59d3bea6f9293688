"""Duplicates and what is done about them, so that none leaks from one split to another.

Exact duplicates have the same SHA-256; one is kept. Near duplicates are joined to groups, most
similar pairs first, and a group stays in one split. The size of a group is limited, so that a chain
of similar images never takes a whole class; pairs that would exceed the limit are reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from components.ingest.catalog import Catalog, Duplicate
from components.ingest.splits.near_duplicates import NearPair, find_near_pairs
from regraft_core.formats.options import IngestOptions
from regraft_core.runtime.errors import DataError

MAX_GROUP_FRACTION, MIN_GROUP_LIMIT = 0.01, 16
EXAMPLES = 24


@dataclass
class DuplicateReport:
    """Counts for the manifest, warnings, and examples (pairs of numbers) for the data card."""

    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    examples: list[tuple[int, int]] = field(default_factory=list)


def resolve_duplicates(catalog: Catalog, options: IngestOptions) -> DuplicateReport:
    """Drop exact duplicates, quarantine conflicting labels, group near duplicates, repair leakage.

    Raises:
        DataError: duplicates are in several splits of the source and `options.leakage` is `fail`.
    """
    report = DuplicateReport()
    leaking = _drop_exact(catalog, report)
    if options.near_duplicates != "off":
        pairs = find_near_pairs(catalog)
        report.examples = [(pair.first, pair.second) for pair in pairs[:EXAMPLES]]
        report.counts["near_pairs"] = len(pairs)
        _warn_of_labels(catalog, pairs, report)
        if options.near_duplicates == "group":
            _join(catalog, pairs, report)
    _repair_leakage(catalog, options, report, leaking)
    return report


def _drop_exact(catalog: Catalog, report: DuplicateReport) -> int:
    """Keep one of each group of equal files; return the number of groups in several splits."""
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
    return leaking


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


def _join(catalog: Catalog, pairs: Sequence[NearPair], report: DuplicateReport) -> None:
    """Give the images of a group one key: the lowest, so that a test image stays in test."""
    limit = max(MIN_GROUP_LIMIT, int(MAX_GROUP_FRACTION * catalog.count()))
    keys = catalog.keys({number for pair in pairs for number in pair[1:]})
    size = catalog.count_by_key(set(keys.values()))
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
        total = size[low] + size[high]
        if total > limit:
            ungrouped += 1
            continue
        parent[high], size[low] = low, total
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


def _repair_leakage(
    catalog: Catalog, options: IngestOptions, report: DuplicateReport, leaking: int
) -> None:
    """Resolve groups in several splits of the source: by default only the test images stay."""
    excluded: list[tuple[bytes, str, str]] = []
    numbers: list[int] = []
    splits: list[tuple[str, int]] = []
    for group in catalog.groups_across_splits():
        leaking += _is_leaking(group)
        kept = group[0]
        for image in group:
            if not image.source_split:
                splits.append((kept.source_split, image.number))
            elif image.source_split != kept.source_split:
                detail = f"similar to {_text(kept.path)} in {kept.source_split}"
                excluded.append((image.path, "leakage", detail))
                numbers.append(image.number)
    report.counts["leaking"] = leaking
    repair = options.leakage == "repair"
    if leaking:
        text = f"{leaking} sets of duplicates were in several splits of the source"
        if options.leakage == "fail":
            raise DataError(f"{text}; expected none (leakage: fail)")
        action = "dropped outside the test split" if repair else "near duplicates were kept"
        report.warnings.append(f"{text}; {action}")
    catalog.set_source_splits(splits)
    if repair:
        catalog.quarantine(excluded)
        catalog.remove_images(numbers)
    report.counts["leaking_dropped"] = len(numbers) if repair else 0


def _is_leaking(group: Sequence[Duplicate]) -> bool:
    return len({image.source_split for image in group if image.source_split}) > 1


def _text(path: bytes) -> str:
    return path.decode("utf-8", "replace")
