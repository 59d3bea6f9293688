"""The options of the step `ingest`."""

from __future__ import annotations

import codecs
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from regraft_core.formats.options.option_types import (
    Fraction,
    InnerFraction,
    Options,
    Seed,
)

FolderUse = Literal["auto", "classes", "splits"]


class IngestOptions(Options):
    """How sources become a dataset."""

    validation_fraction: InnerFraction = Field(
        default=0.15, description="Fraction of the images used for validation."
    )
    test_fraction: InnerFraction = Field(
        default=0.2, description="Fraction of the images used for the test split."
    )
    min_per_class: int = Field(
        default=1, ge=1, description="Minimum number of images per class in each split."
    )
    max_invalid_fraction: Fraction = Field(
        default=0.05, description="Maximum fraction of invalid files; ingest stops above it."
    )
    max_pixels: int = Field(
        default=100_000_000,
        ge=1,
        le=100_000_000,
        description="Maximum number of pixels per image; larger images are invalid.",
    )
    near_duplicates: Literal["group", "report", "off"] = Field(
        default="group",
        description="Near duplicates: keep each group in one split, report them, or skip them.",
    )
    leakage: Literal["repair", "report", "fail"] = Field(
        default="repair",
        description="Duplicates across given splits: keep the test copy, report them, or stop.",
    )
    folders: FolderUse = Field(
        default="auto",
        description="What the folders of the source are; `auto` decides by their names.",
    )
    slices: tuple[str, ...] = Field(
        default=(),
        description="Columns of a table, such as camera,site, by whose values accuracy is measured "
        "too; `folder` is the first folder below the class folder.",
    )
    label_columns: tuple[str, ...] = Field(
        default=(),
        description="Columns of a table with 0 or 1, such as cat,dog, that are the classes; an "
        "image may have several.",
    )
    label_separator: str = Field(
        default="",
        max_length=8,
        description="Text between the labels of an image in the label column, such as `;`; empty "
        "expects one label, or a JSON list.",
    )
    label_column: str = Field(
        default="label",
        min_length=1,
        description="Column of a table, or key of a JSON record, that has the label.",
    )
    split_column: str = Field(
        default="",
        description="Column that has the split of each image; empty uses `split` if there is one.",
    )
    group_column: str = Field(
        default="",
        description="Column, such as patient, whose images with the same value stay in one split; "
        "empty uses `group` if there is one.",
    )
    crops: bool = Field(
        default=False,
        description="Make one image of each box of COCO and Pascal VOC, instead of one of each "
        "file.",
    )
    archive_encoding: str = Field(
        default="",
        description="Code page of names in an archive that are not UTF-8, such as cp1252 or cp932; "
        "empty uses that of the zip format, cp437.",
    )
    seed: Seed = 0
    processes: int = Field(
        default=0, ge=0, le=256, description="Number of worker processes; 0 uses one per CPU core."
    )
    sha256: str = Field(
        default="",
        pattern="^([0-9a-fA-F]{64})?$",
        description="Expected SHA-256 (hex) of the archive; empty skips the check.",
    )
    mirrors: tuple[str, ...] = Field(
        default=(), description="Alternative URLs of the same archive, tried in order."
    )
    download_cache: str = Field(
        default="~/.cache/regraft", description="Folder for downloaded archives."
    )
    download_timeout_s: float = Field(
        default=30.0, gt=0.0, description="Seconds without data after which a connection times out."
    )
    download_deadline_s: float = Field(
        default=21_600.0, gt=0.0, description="Maximum total seconds for a download."
    )
    download_attempts: int = Field(
        default=5, ge=1, le=100, description="Number of download attempts per URL."
    )
    download_backoff_s: float = Field(
        default=1.0,
        ge=0.0,
        le=600.0,
        description="Seconds before the first download retry; doubles each time, with jitter.",
    )
    max_download_bytes: int = Field(
        default=1 << 40, ge=1, description="Maximum size of a download, in bytes."
    )
    table_paths: Literal["below", "anywhere"] = Field(
        default="below",
        description="Files that a local table may name: those below its folder, or all.",
    )
    max_archive_bytes: int = Field(
        default=1 << 40, ge=1, description="Maximum unpacked size of an archive, in bytes."
    )
    max_archive_members: int = Field(
        default=1_000_000, ge=1, description="Maximum number of files in an archive."
    )
    fixes: str = Field(
        default="",
        description="CSV file of `regraft review`, whose images are relabeled or excluded; empty "
        "changes none.",
    )

    @field_validator("slices")
    @classmethod
    def _are_different_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(name.strip().lower() for name in value)
        if len(set(names)) < len(names) or not all(names):
            raise ValueError("expected names of different columns")
        return names

    @field_validator("label_columns")
    @classmethod
    def _are_different_classes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(name.strip() for name in value)
        if len({name.lower() for name in names}) < len(names) or not all(names):
            raise ValueError("expected names of different columns")
        return names

    @field_validator("label_separator")
    @classmethod
    def _is_alone(cls, value: str, info: ValidationInfo) -> str:
        if value and info.data.get("label_columns"):
            raise ValueError("expected label_separator or label_columns, got both")
        return value

    @field_validator("archive_encoding")
    @classmethod
    def _is_known_encoding(cls, value: str) -> str:
        try:
            codecs.lookup(value or "cp437")
        except LookupError as error:
            raise ValueError("expected a code page, such as cp1252 or cp932") from error
        return value

    @field_validator("test_fraction")
    @classmethod
    def _leaves_images_to_train(cls, value: float, info: ValidationInfo) -> float:
        if value + info.data.get("validation_fraction", 0.0) >= 1.0:
            raise ValueError("expected validation_fraction + test_fraction below 1")
        return value
