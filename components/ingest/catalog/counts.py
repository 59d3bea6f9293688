"""Counts of the images, for checks, warnings, the manifest and the data card."""

from __future__ import annotations

from components.ingest.catalog.catalog import Catalog

PAIRED_CLASSES = 100
MEASURES = {
    "longer_side_px": "max(width, height)",
    "aspect_ratio": "1.0 * width / height",
    "stored_kb": "length / 1024.0",
}
"""What histograms are made of, as SQL."""


def count_images(catalog: Catalog) -> int:
    """Return the number of images."""
    return int(next(catalog.query("SELECT count(*) FROM images"))[0])


def count_by_reason(catalog: Catalog) -> dict[str, int]:
    """Return the number of excluded files by reason."""
    return dict(catalog.query("SELECT reason, count(*) FROM quarantine GROUP BY 1 ORDER BY 1"))


def count_by_class(catalog: Catalog) -> dict[str, int]:
    """Return the number of images by class."""
    return dict(
        catalog.query(
            f"SELECT label, count(*) FROM {catalog.by_class} GROUP BY 1 ORDER BY 1"  # noqa: S608
        )
    )


def count_by_label(catalog: Catalog) -> dict[str, int]:
    """Return the number of images by label.

    The list of the classes of an image with several labels is one label here.
    """
    return dict(catalog.query("SELECT label, count(*) FROM images GROUP BY 1 ORDER BY 1"))


def count_labels_per_image(catalog: Catalog) -> dict[int, int]:
    """Return the number of images by the number of their labels, which are lists."""
    return dict(
        catalog.query("SELECT json_array_length(label), count(*) FROM images GROUP BY 1 ORDER BY 1")
    )


def count_label_pairs(catalog: Catalog, limit: int) -> list[tuple[str, str, int]]:
    """Return the most frequent pairs of classes of an image, each with its images.

    They are of the `PAIRED_CLASSES` most frequent classes, because an image with thousands of
    labels has millions of pairs.
    """
    frequent = f"SELECT label FROM {catalog.by_class} GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT ?"  # noqa: S608
    return catalog.query(
        f"WITH frequent AS MATERIALIZED ({frequent}), pairable AS MATERIALIZED"  # noqa: S608
        " (SELECT number, class.value AS name FROM images, json_each(label) AS class"
        " WHERE class.value IN frequent)"
        " SELECT first.name, second.name, count(*) FROM pairable AS first JOIN pairable AS second"
        " ON first.number = second.number AND first.name < second.name"
        " GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT ?",
        (PAIRED_CLASSES, limit),
    ).fetchall()


def count_split_images(catalog: Catalog) -> dict[str, int]:
    """Return the number of images by split."""
    return dict(catalog.query("SELECT split, count(*) FROM images GROUP BY 1 ORDER BY 1"))


def count_by_split(catalog: Catalog, source_split: str | None = None) -> dict[str, dict[str, int]]:
    """Return the number of images by split and class, of all or of one split of the source."""
    counts: dict[str, dict[str, int]] = {}
    for split, label, count in catalog.query(
        f"SELECT split, label, count(*) FROM {catalog.by_class}"  # noqa: S608
        " WHERE ?1 IS NULL OR source_split = ?1 GROUP BY 1, 2 ORDER BY 1, 2",
        (source_split,),
    ):
        counts.setdefault(split, {})[label] = count
    return counts


def count_by_slice(catalog: Catalog, index: int) -> dict[str, int]:
    """Return the number of images by value of a slice, given by its number."""
    return dict(
        catalog.query(
            "SELECT json_extract(slices, ?), count(*) FROM images GROUP BY 1 ORDER BY 1",
            (f"$[{index}]",),
        )
    )


def count_conversions(catalog: Catalog) -> dict[str, int]:
    """Return the number of images by kind of conversion."""
    return _count_words(catalog, "conversions")


def count_notes(catalog: Catalog) -> dict[str, int]:
    """Return the number of images by note, such as `dark`."""
    return _count_words(catalog, "notes")


def histogram(catalog: Catalog, measure: str, bins: int) -> tuple[float, float, dict[int, int]]:
    """Return minimum, maximum and counts by bin of a measure; no counts if all are equal."""
    value = MEASURES[measure]
    low, high = next(catalog.query(f"SELECT min({value}), max({value}) FROM images"))  # noqa: S608
    if low == high:
        return low, high, {}
    bin_of = f"min(CAST(({value} - ?1) * ?2 / (?3 - ?1) AS INTEGER), ?2 - 1)"
    counts = catalog.query(
        f"SELECT {bin_of}, count(*) FROM images GROUP BY 1",  # noqa: S608
        (low, bins, high),
    )
    return low, high, dict(counts)


def _count_words(catalog: Catalog, column: str) -> dict[str, int]:
    """Count the words of a comma-separated column."""
    counts: dict[str, int] = {}
    for words, count in catalog.query(
        f"SELECT {column}, count(*) FROM images WHERE {column} <> '' GROUP BY 1"  # noqa: S608
    ):
        for word in words.split(","):
            counts[word] = counts.get(word, 0) + count
    return dict(sorted(counts.items()))
