"""`regraft drift`: the images of a log or a folder, compared with the reference of a model."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.drift.sources import Checked, ServedModel, read_image_folder, read_logged_images
from regraft.model_folder import find_model_folder
from regraft_core.drift.check import CheckOptions, DriftTest, Observed, check_drift
from regraft_core.formats.drift_reference import DriftReference
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.request_log import log_files
from regraft_core.formats.version_names import version_number
from regraft_core.runtime.errors import InputError

MIN_IMAGES = 50


@dataclass(frozen=True)
class DriftOptions:
    """How to check.

    Attributes:
        name: the model's name in the log; empty uses that of its folder.
        max_images: images to check at most.
        check: significance and seed of the tests.
    """

    name: str = ""
    max_images: int = 1000
    check: CheckOptions = field(default_factory=CheckOptions)


@dataclass(frozen=True)
class ClassFraction:
    """A class, and the fraction of the images that are predicted as it."""

    name: str
    reference: float
    images: float


@dataclass(frozen=True)
class DriftReport:
    """The result of a check.

    Attributes:
        model: name of the model.
        version: its version; None if its folder is not named by one.
        digest: of the exported model.
        source: the log or folder.
        images: images that were checked.
        reference_images: images of the reference.
        excluded: images that do not count, by reason.
        lost_lines: files of the log that end within a line.
        first: time of the oldest image of a log.
        last: time of the newest.
        significance: rate of false alarms of a check.
        drift: whether a test alarms.
        tests: the tests.
        classes: the predicted classes.
        unfamiliar: fraction of the images below the OOD threshold; None if unknown.
        unfamiliar_reference: that of the reference.
    """

    model: str
    version: int | None
    digest: str
    source: str
    images: int
    reference_images: int
    excluded: Mapping[str, int]
    lost_lines: int
    first: str
    last: str
    significance: float
    drift: bool
    tests: tuple[DriftTest, ...]
    classes: tuple[ClassFraction, ...]
    unfamiliar: float | None
    unfamiliar_reference: float | None

    def as_json(self) -> dict[str, Any]:
        """Return the report as values of JSON."""
        return asdict(self)


@dataclass(frozen=True)
class DriftCheck:
    """A report with the arrays that its page shows."""

    report: DriftReport
    reference: DriftReference
    observed: Observed


def measure_drift(
    model: str | os.PathLike[str], source: str | os.PathLike[str],
    options: DriftOptions | None = None,
) -> DriftCheck:  # fmt: skip
    """Compare the images of a request log or a folder with the reference of a model.

    Args:
        model: the folder of a run, of a published model (its stable or else newest version), or of
            a version; or the URI of a published one.
        source: the folder of a request log, or of images.
        options: how to check.

    Raises:
        InputError: there is no model with a reference, the source cannot be read or is of another
            model, or either has too few images.
    """
    options = options or DriftOptions()
    if not Path(source).exists():
        raise InputError(f"expected the folder of a request log or of images, found no {source}")
    with tempfile.TemporaryDirectory(prefix="regraft-drift-") as work:
        folder = find_model_folder(model, Path(work))
        if (folder / ModelManifest.file_name).is_file():
            raise InputError(f"{folder}: expected an exported model, got a candidate")
        manifest = SavedModelManifest.read(folder)
        reference = DriftReference.read(folder)
        if len(reference.class_counts) != len(manifest.classes):
            raise InputError(f"{folder}: expected a reference of {len(manifest.classes)} classes")
        path = folder.resolve()
        version = version_number(path.name)
        name = options.name or (None if version is None else path.parent.name)
        served = ServedModel(manifest.classes, reference.features.shape[1], name, version)
        if log_files(source):
            checked = read_logged_images(source, served, options.max_images)
        else:
            checked = read_image_folder(source, folder, manifest.classes, options.max_images)
    _require(len(reference.predicted), f"{folder}: the reference")
    _require(len(checked.observed.predicted), f"{source}", checked.excluded)
    tests = check_drift(reference, checked.observed, options.check)
    report = DriftReport(
        model=name or path.name,
        version=version,
        digest=manifest.digest,
        source=str(source),
        images=len(checked.observed.predicted),
        reference_images=len(reference.predicted),
        excluded=checked.excluded,
        lost_lines=checked.lost_lines,
        first=checked.first,
        last=checked.last,
        significance=options.check.significance,
        drift=any(test.alarm for test in tests),
        tests=tuple(tests),
        classes=_class_fractions(manifest.classes, reference, checked),
        unfamiliar=_below(checked.observed.familiarity, reference),
        unfamiliar_reference=_below(reference.familiarity, reference),
    )
    return DriftCheck(report, reference, checked.observed)


def _require(images: int, where: str, excluded: Mapping[str, int] | None = None) -> None:
    if images < MIN_IMAGES:
        others = ", ".join(f"{count} {reason}" for reason, count in (excluded or {}).items())
        raise InputError(
            f"{where}: expected {MIN_IMAGES} images or more, found {images}"
            + (f" (not counted: {others})" if others else "")
        )


def _class_fractions(
    classes: list[str], reference: DriftReference, checked: Checked
) -> tuple[ClassFraction, ...]:
    before, now = (
        np.bincount(predicted, minlength=len(classes)) / len(predicted)
        for predicted in (reference.predicted, checked.observed.predicted)
    )
    return tuple(
        ClassFraction(name, float(before[k]), float(now[k])) for k, name in enumerate(classes)
    )


def _below(scores: NDArray[np.floating], reference: DriftReference) -> float | None:
    known = scores[np.isfinite(scores)]
    if not len(known) or math.isnan(reference.threshold):
        return None
    return float(np.mean(known < reference.threshold))
