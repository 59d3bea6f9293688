"""The slices of a dataset: columns whose values divide the images, such as a camera or a site."""

from __future__ import annotations

import re
from collections.abc import Sequence

from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.counts import count_by_slice, count_images
from regraft_core.runtime.errors import DataError

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
MAX_VALUES, MAX_CHARACTERS = 1000, 200


def count_slices(catalog: Catalog, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the number of images by value of each slice; missing values are empty.

    Raises:
        DataError: all values of a slice are missing, it has so many or so long values that it does
            not divide the images, or a value has a line break or another control character.
    """
    images = count_images(catalog)
    found = {name: count_by_slice(catalog, index) for index, name in enumerate(names)}
    for name, counts in found.items():
        if set(counts) == {""}:
            raise DataError(f"slices: expected values of {name!r}, found none for all images")
        if len(counts) > min(images / 2, MAX_VALUES):
            raise DataError(
                f"slices: {name!r} has {len(counts)} values for {images} images; expected a column "
                f"with few, each of several images and at most {MAX_VALUES}"
            )
        longest = max(map(len, counts))
        if longest > MAX_CHARACTERS:
            raise DataError(
                f"slices: expected values of {name!r} of at most {MAX_CHARACTERS} characters, "
                f"found {longest}"
            )
        if broken := next(filter(_CONTROLS.search, counts), ""):
            raise DataError(
                f"slices: expected values of {name!r} without line breaks and control characters, "
                f"found {broken!r}"
            )
    return found
