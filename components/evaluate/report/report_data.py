"""The data of a report as one JSON file, so that the page can be rebuilt without a model."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any, ClassVar, Literal

from pydantic import Field

from regraft_core.formats.manifest_storage import Record
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.model import ModelManifest

PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn", "kfp")

PREDICTIONS_FILE = "predictions.npz"


class ReliabilityBin(Record):
    """One bin of the reliability diagram."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


class GalleryItem(Record):
    """One error: the image and its heat map as data URIs (empty: none)."""

    path: str
    true_label: str
    label: str
    confidence: float
    true_label_probability: float
    image: str
    overlay: str = ""


class LabelError(Record):
    """A label that an image has and does not get (missed), or gets and does not have (false).

    The image and its heat map for the label are data URIs (empty: none).
    """

    kind: Literal["missed", "false"]
    path: str
    label: str
    probability: float
    threshold: float
    true_labels: list[str]
    image: str
    overlay: str = ""


class ReportData(Record):
    """The content of `report.json`, next to `evaluation.json`.

    `corruption_examples` are a test image at each strength by kind of corruption, as data URIs.
    `label_errors` and `precision_recall`, the (recall, precision) of each class at some of its
    thresholds, are only those of a model for several labels an image.
    """

    file_name: ClassVar[str] = "report.json"

    evaluation: EvaluationManifest
    dataset: DatasetManifest
    models: list[ModelManifest]
    reliability_before: list[ReliabilityBin] = Field(default_factory=list)
    reliability_after: list[ReliabilityBin] = Field(default_factory=list)
    gallery: list[GalleryItem] = Field(default_factory=list)
    gallery_note: str = ""
    label_errors: list[LabelError] = Field(default_factory=list)
    precision_recall: dict[str, list[tuple[float, float]]] = Field(default_factory=dict)
    corruption_examples: dict[str, list[str]] = Field(default_factory=dict)
    timings: dict[str, float] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)


def without_shards(dataset: DatasetManifest) -> DatasetManifest:
    """Return the manifest without its lists of files, which no report shows."""
    splits = {name: info.model_copy(update={"shards": []}) for name, info in dataset.splits.items()}
    return dataset.model_copy(update={"splits": splits})


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that computed the metrics."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
