"""The split of each image of the catalog: that of the source, or that of its key."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from components.ingest.catalog.assignments import assign_by_key, source_splits, use_source_splits
from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.columns import read_integers, read_words, write_words
from components.ingest.catalog.counts import count_by_class, count_by_reason, count_by_split
from components.ingest.splits.group_splits import assign_groups
from components.ingest.splits.split_keys import assign_splits, thresholds
from regraft_core.formats.manifests.dataset import SPLITS
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import DataError
from regraft_core.training.stratification import stratify

_COPIES = ("exact-duplicate", "leakage")


def assign_catalog(
    catalog: Catalog,
    classes: Sequence[str],
    options: IngestOptions,
    *,
    several: bool = False,
    has_groups: bool = False,
) -> list[str]:
    """Assign a split to each image; return warnings.

    Images with several labels are divided by their labels, images with groups so that the splits
    keep their fractions, others by their keys.

    Raises:
        DataError: a class has fewer images than the minimum in a split.
    """
    warnings = []
    by_class = _assign_groups if has_groups else _assign_by_key
    assign = _assign_by_labels if several else by_class
    given = source_splits(catalog)
    if given != {""}:
        # Near duplicates of an image with a split may have received its split.
        use_source_splits(catalog)
    if "" in given:
        assign(catalog, "", classes, options, {"validation", "test"})
    elif missing := {"validation", "test"} - given:
        warnings.append(
            f"the source has no {' and no '.join(sorted(missing))} split; sampled from its train "
            "split"
        )
        assign(catalog, "train", classes, options, missing)
    _check_minimum(catalog, classes, options, given, has_groups=has_groups)
    return warnings


def _check_minimum(
    catalog: Catalog, classes: Sequence[str], options: IngestOptions, given: set[str], *,
    has_groups: bool,
) -> None:  # fmt: skip
    """Check that each class has the minimum of images in each split; `given` are the source's.

    Raises:
        DataError: one has fewer; the message says what helps.
    """
    counts = count_by_split(catalog)
    total = count_by_class(catalog)
    for split in SPLITS:
        by_class = dict.fromkeys(classes, 0) | counts.get(split, {})
        few = {name: count for name, count in by_class.items() if count < options.min_per_class}
        if not few:
            continue
        needed = options.min_per_class * len(SPLITS)
        if split in given:
            remedy = f"add images to the {split} split of the source, or remove these classes"
            if split != "train":
                remedy += f"; without its {split} split, one is sampled from the train split"
        elif any(total.get(name, 0) < needed for name in few):
            remedy = (
                f"each class needs at least {needed} images, {options.min_per_class} for each "
                "split: add images, or remove these classes"
            )
        elif has_groups:
            remedy = "all images of a group are in one split: add groups with images of them"
        else:
            remedy = f"change --{split}-fraction" if split != "train" else "change the fractions"
        copies = sum(count_by_reason(catalog).get(name, 0) for name in _COPIES)
        if copies:
            remedy += f" ({copies} copies of other images were dropped)"
        more = f" and {len(few) - 20} more classes" if len(few) > 20 else ""
        listed = ", ".join(f"{name} {count}" for name, count in list(few.items())[:20]) + more
        raise DataError(
            f"expected at least {options.min_per_class} images of each class in the {split} split, "
            f"found {listed}; {remedy}"
        )


def _assign_by_key(
    catalog: Catalog, source_split: str, classes: Sequence[str], options: IngestOptions,
    wanted: Collection[str],
) -> None:  # fmt: skip
    """Split the images of one split of the source by their keys, into train and `wanted`."""
    validation = options.validation_fraction if "validation" in wanted else 0.0
    test = options.test_fraction if "test" in wanted else 0.0
    assign_by_key(catalog, source_split, thresholds(validation, test))
    by_split = count_by_split(catalog, source_split).values()
    counts = [count for by_class in by_split for count in by_class.values()]
    if len(counts) == len(classes) * (1 + len(wanted)) and min(counts) >= options.min_per_class:
        return
    _assign(catalog, source_split, classes, options, (validation, test), assign_splits)


def _assign_groups(
    catalog: Catalog, source_split: str, classes: Sequence[str], options: IngestOptions,
    wanted: Collection[str],
) -> None:  # fmt: skip
    """Split the images of one split of the source by their groups, into train and `wanted`."""
    validation = options.validation_fraction if "validation" in wanted else 0.0
    test = options.test_fraction if "test" in wanted else 0.0
    _assign(catalog, source_split, classes, options, (validation, test), assign_groups)


def _assign(
    catalog: Catalog, source_split: str, classes: Sequence[str], options: IngestOptions,
    fractions: tuple[float, float], rule: Callable[..., np.ndarray],
) -> None:  # fmt: skip
    """Set the splits by a rule, such as `assign_splits`, for fractions of validation and test."""
    index = {name: number for number, name in enumerate(classes)}
    labels = read_words(catalog, "label", source_split)
    splits = rule(
        read_integers(catalog, "key", source_split),
        np.array([index[label] for label in labels.values], np.int32)[labels.codes],
        minimum=options.min_per_class, validation_fraction=fractions[0],
        test_fraction=fractions[1],
    )  # fmt: skip
    _write_splits(catalog, source_split, splits, SPLITS)


def _write_splits(
    catalog: Catalog, source_split: str, splits: NDArray[np.integer], names: Sequence[str]
) -> None:
    """Set the splits (positions in `names`) of images of one split of the source that change."""
    before = read_words(catalog, "split", source_split)
    position = {name: number for number, name in enumerate(names)}
    old = np.array([position.get(name, -1) for name in before.values], np.int32)[before.codes]
    changed = np.flatnonzero(splits != old)
    numbers = read_integers(catalog, "number", source_split)
    write_words(catalog, "split", splits[changed], names, numbers[changed])


def _assign_by_labels(
    catalog: Catalog, source_split: str, classes: Sequence[str], options: IngestOptions,
    wanted: Collection[str],
) -> None:  # fmt: skip
    """Split the images of one split of the source, by their labels, into train and `wanted`.

    Images with equal keys, such as near duplicates, stay together. The keys are the order in which
    equal choices are made, so the splits depend on the images and the seed alone.
    """
    test = options.test_fraction if "test" in wanted else 0.0
    validation = options.validation_fraction if "validation" in wanted else 0.0
    fractions = {"train": 1.0 - validation - test, "validation": validation, "test": test}
    splits = [split for split, fraction in fractions.items() if fraction]
    index = {name: number for number, name in enumerate(classes)}
    labels = read_words(catalog, "label", source_split)
    lists = [[index[name] for name in json.loads(label)] for label in labels.values]
    keys, unit_of = np.unique(read_integers(catalog, "key", source_split), return_inverse=True)
    counts = np.zeros((len(keys), len(classes)), np.int64)
    for unit, code in zip(unit_of, labels.codes, strict=True):
        counts[unit, lists[code]] += 1
    subset = stratify(
        counts, np.bincount(unit_of, minlength=len(keys)), [fractions[split] for split in splits],
        options.min_per_class,
    )  # fmt: skip
    _write_splits(catalog, source_split, subset[unit_of], splits)
