"""Applies the decisions of a review to the images, by the SHA-256 of their source bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.counts import count_by_class
from components.ingest.catalog.duplicates import images_with_id, relabel
from regraft_core.formats.fixes import FixesFile
from regraft_core.formats.manifests.dataset import AppliedFixes
from regraft_core.runtime.errors import InputError

DROPPED = "dropped-in-review"


def apply_fixes(catalog: Catalog, file: FixesFile) -> AppliedFixes:
    """Relabel and drop images; this precedes the search for duplicates, so it can end conflicts.

    A fix of an image that has neither the old nor the new label any more is outdated and not
    applied, because the source was changed after the review.

    Args:
        catalog: all images.
        file: the fixes.

    Raises:
        InputError: no fix is of one of the images, or a new label is not a class.
    """
    _check_labels(count_by_class(catalog), file)
    found = {
        fix: images for fix in file.fixes.values()
        if (images := images_with_id(catalog, bytes.fromhex(fix.sha256)))
    }  # fmt: skip
    if not found:
        raise InputError(
            f"fixes: {file.location}: expected fixes of images in the sources, found none of "
            f"{len(file.fixes)}; use the sources of the run that was reviewed"
        )
    relabeled: list[tuple[str, int]] = []
    dropped: list[int] = []
    excluded: list[tuple[bytes, str, str]] = []
    counts: Counter[str] = Counter()
    for fix, images in found.items():
        current = [image for image in images if image.label == fix.old_label]
        if not current and fix.new_label not in {image.label for image in images}:
            counts["outdated"] += 1
            continue
        counts[fix.action] += 1
        if fix.action == "relabel":
            relabeled += [(fix.new_label, image.number) for image in current]
        elif fix.action == "drop":
            detail = f"by {fix.who or 'an unnamed reviewer'} at {fix.when}"
            excluded += [(image.path, DROPPED, detail) for image in current]
            dropped += [image.number for image in current]
    relabel(catalog, relabeled)
    catalog.quarantine(excluded)
    catalog.remove_images(dropped)
    times = sorted(fix.when for fix in file.fixes.values())
    return AppliedFixes(
        digest=file.digest, relabeled=counts["relabel"], dropped=counts["drop"],
        kept=counts["keep"], unsure=counts["unsure"], outdated=counts["outdated"],
        unknown=len(file.fixes) - len(found),
        reviewers=dict(sorted(Counter(fix.who for fix in file.fixes.values()).items())),
        first=times[0], last=times[-1],
    )  # fmt: skip


def describe_applied(applied: AppliedFixes) -> str:
    """Return in one line what the fixes have changed."""
    return (
        f"fixes: {applied.relabeled} images relabeled, {applied.dropped} dropped, {applied.kept} "
        f"confirmed, {applied.unsure} unsure"
    )


def describe_unapplied(applied: AppliedFixes) -> list[str]:
    """Return warnings of the fixes that could not be applied."""
    warnings = []
    if applied.unknown:
        warnings.append(f"fixes: {applied.unknown} are of images that are not in the sources")
    if applied.outdated:
        warnings.append(
            f"fixes: {applied.outdated} are of images whose label in the sources has changed since "
            "the review; they were not applied"
        )
    return warnings


def _check_labels(classes: Collection[str], file: FixesFile) -> None:
    for fix in file.fixes.values():
        if fix.new_label and fix.new_label not in classes:
            known = ", ".join(sorted(classes)[:12])
            raise InputError(
                f"fixes: {file.location}: expected a class as new label of "
                f"{fix.sha256[:12]}, got {fix.new_label!r}; classes: {known}"
            )
