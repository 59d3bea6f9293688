"""How many labels the images have, and which labels occur together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.counts import (
    count_by_class,
    count_images,
    count_label_pairs,
    count_labels_per_image,
)

PAIRS = 20


@dataclass(frozen=True)
class LabelCounts:
    """Labels of images that may have several.

    Attributes:
        by_number: the number of images by the number of their labels.
        pairs: the most frequent pairs of frequent labels: both, the images with both, and the
            fraction of the images with either that have both (Jaccard index).
    """

    by_number: dict[int, int]
    pairs: list[tuple[str, str, int, float]]

    @property
    def mean(self) -> float:
        """The mean number of labels of an image."""
        images = sum(self.by_number.values())
        return sum(number * count for number, count in self.by_number.items()) / images


def count_labels(catalog: Catalog) -> LabelCounts:
    """Count the labels of the images of a catalog with lists of labels."""
    of_class = count_by_class(catalog)
    pairs = [
        (first, second, both, both / (of_class[first] + of_class[second] - both))
        for first, second, both in count_label_pairs(catalog, PAIRS)
    ]
    return LabelCounts(count_labels_per_image(catalog), pairs)


def describe_lists(catalog: Catalog) -> Iterator[str]:
    """Yield warnings of labels that all images have, and of lists that all have one label."""
    images = count_images(catalog)
    everywhere = [name for name, count in count_by_class(catalog).items() if count == images]
    if everywhere:
        yield f"all images have the label {everywhere[0]!r}, so no model can learn to tell it apart"
    if set(count_by_class(catalog)) == {"0", "1"}:
        yield (
            "the labels of the lists are 0 and 1; if these stand for absent and present, write the "
            "names of the labels, or a column for each with --label-columns"
        )
    if set(count_labels_per_image(catalog)) == {1}:
        yield (
            "each image has a list of one label; if this is so by design, write labels without "
            "lists, for one label an image"
        )
