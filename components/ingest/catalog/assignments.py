"""Splits of the source, and splits assigned by them or by the keys of the images."""

from __future__ import annotations

from components.ingest.catalog.catalog import Catalog


def source_splits(catalog: Catalog) -> set[str]:
    """Return the splits of the source; an empty string if an image has none."""
    return {split for (split,) in catalog.query("SELECT DISTINCT source_split FROM images")}


def use_source_splits(catalog: Catalog) -> None:
    """Assign the splits of the source to the images that have one."""
    catalog.query(
        "UPDATE images SET split = source_split WHERE source_split <> '' AND split <> source_split"
    )


def assign_by_key(catalog: Catalog, source_split: str, ends: tuple[int, int]) -> None:
    """Assign images of one split of the source the splits of their keys, as `split_of` does."""
    split = "CASE WHEN key < ?1 THEN 'test' WHEN key < ?2 THEN 'validation' ELSE 'train' END"
    catalog.query(
        f"UPDATE images SET split = {split} WHERE source_split = ?3 AND split <> {split}",  # noqa: S608
        (*ends, source_split),
    )
