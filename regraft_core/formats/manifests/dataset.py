"""The manifest of a dataset, which `ingest` writes."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from regraft_core.formats.manifest_storage import Manifest, Record

SPLITS = ("train", "validation", "test")
Split = Literal["train", "validation", "test"]
LabelsPerImage = Literal["one", "several"]
LABELS_PER_IMAGE = "Whether an image has one label, or any number of them."

# No path: a manifest from elsewhere names files of its own folder only.
FILE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.=-]*$"


class Shard(Record):
    """One file of records."""

    file: str = Field(
        pattern=FILE_NAME, description="Name of the TFRecord file, relative to the folder."
    )
    count: int = Field(description="Number of records.")
    sha256: str = Field(description="SHA-256 (hex) of the file.")


class SplitInfo(Record):
    """One split of a dataset: its shards and its images by class."""

    count: int = Field(description="Number of images.")
    by_class: dict[str, int] = Field(
        description="Number of images by class name; an image with several labels counts for each."
    )
    shards: list[Shard] = Field(description="Files, in reading order.")


class AppliedFixes(Record):
    """The decisions of a review that a dataset was made with; `fixes.csv` has all of them."""

    digest: str = Field(description="SHA-256 (hex) of the file of fixes.")
    relabeled: int = Field(description="Images with another label than in the source.")
    dropped: int = Field(description="Images that were excluded.")
    kept: int = Field(description="Images whose label was confirmed.")
    unsure: int = Field(description="Images that a reviewer could not decide on.")
    outdated: int = Field(
        description="Fixes that were not applied, because the source has another label now."
    )
    unknown: int = Field(description="Fixes of images that are not in the sources.")
    reviewers: dict[str, int] = Field(description="Number of fixes by reviewer.")
    first: str = Field(description="Time of the first decision, UTC.")
    last: str = Field(description="Time of the last decision, UTC.")


class DatasetManifest(Manifest):
    """`dataset.json`: TFRecord shards of encoded images, by split.

    `digest` covers the classes and, per split, the sorted image IDs with their labels, and slices
    if there are any, so it does not depend on order, shard sizes, processes or file names.
    """

    file_name: ClassVar[str] = "dataset.json"

    classes: list[str] = Field(
        description="Class names; the index of a name is the label in the records."
    )
    labels_per_image: LabelsPerImage = Field(default="one", description=LABELS_PER_IMAGE)
    splits: dict[Split, SplitInfo] = Field(description="Images and shards by split.")
    sources: list[str] = Field(description="Sources of the images, without credentials.")
    conversions: dict[str, int] = Field(
        default_factory=dict,
        description="Images that decoding or storing changes, by kind of change.",
    )
    quarantined: dict[str, int] = Field(
        default_factory=dict, description="Excluded files by reason; `quarantine.csv` lists them."
    )
    ignored: int = Field(
        default=0, description="Files that are not images by their names, such as `.DS_Store`."
    )
    duplicates: dict[str, int] = Field(
        default_factory=dict, description="Exact and near duplicates, found and removed."
    )
    slices: dict[str, dict[str, int]] = Field(
        default_factory=dict,
        description="Number of images by value of each slice; a missing value is empty.",
    )
    warnings: list[str] = Field(
        default_factory=list, description="Warnings that affect how the metrics should be read."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Ingest options that the dataset depends on."
    )
    fixes: AppliedFixes | None = Field(
        default=None, description="Decisions of a review; null if there was none."
    )
