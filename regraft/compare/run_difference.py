"""`regraft diff`: two runs compared, image by image if their test split is the same."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from components.evaluate.metrics.label_comparison import LabelComparison, compare_labels
from components.evaluate.metrics.statistics import Comparison, compare
from components.evaluate.report.report_data import PREDICTIONS_FILE, ReportData
from regraft.compare.run_list import options_of
from regraft.training_run import Run
from regraft_core.formats.manifests.dataset import SPLITS, DatasetManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.runtime.errors import InputError


@dataclass(frozen=True)
class Pair:
    """A value of both runs; None if a run has none."""

    first: Any
    second: Any


@dataclass(frozen=True)
class MetricPair:
    """A metric on each run's own test split, with its 95% interval if it has one."""

    first: float | None
    second: float | None
    first_interval: tuple[float, float] | None = None
    second_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class RunDifference:
    """What differs between two runs.

    Attributes:
        first: folder of the first run.
        second: folder of the second.
        verdicts: of the gate.
        options: that differ; None is the default.
        data: facts about the datasets that differ.
        head: facts about the chosen models that differ.
        metrics: all metrics.
        paired: the accuracies on the test images, which are the same, with the second run as the
            candidate, or with several labels an image the mAP; None if the test images differ.
        unpaired: why the runs are not compared image by image; empty if they are.
    """

    first: str
    second: str
    verdicts: Pair
    options: Mapping[str, Pair]
    data: Mapping[str, Pair]
    head: Mapping[str, Pair]
    metrics: Mapping[str, MetricPair]
    paired: Comparison | LabelComparison | None
    unpaired: str

    def as_json(self) -> dict[str, Any]:
        """Return the difference as values of JSON."""
        return asdict(self)


def compare_runs(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> RunDifference:
    """Compare two finished runs.

    Raises:
        InputError: one has no summary, or its evaluation cannot be read.
    """
    runs = Run.read(first), Run.read(second)
    reports = _read_report(runs[0]), _read_report(runs[1])
    paired, reason = _compare_images(runs, reports)
    return RunDifference(
        first=str(first),
        second=str(second),
        verdicts=Pair(*(run.summary["verdict"] for run in runs)),
        options=_differences(*(options_of(run) for run in runs)),
        data=_differences(*(_data_facts(report.dataset) for report in reports)),
        head=_differences(*(_model_facts(report) for report in reports)),
        metrics=_metrics(*(run.metrics for run in runs)),
        paired=paired,
        unpaired=reason,
    )


def _read_report(run: Run) -> ReportData:
    file = run.report.with_name(ReportData.file_name)
    try:
        return ReportData.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"cannot read the evaluation of the run {run.folder}: {line}") from error


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Pair]:
    names = [*first, *(name for name in second if name not in first)]
    pairs = {name: Pair(first.get(name), second.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair.first != pair.second}


def _data_facts(dataset: DatasetManifest) -> dict[str, Any]:
    counts = {f"{split} images": dataset.splits[split].count for split in SPLITS
              if split in dataset.splits}  # fmt: skip
    return {
        "sources": ", ".join(dataset.sources),
        "classes": ", ".join(dataset.classes),
        **counts,
        "excluded files": sum(dataset.quarantined.values()),
        "digest": dataset.digest[:12],
    }


def _model_facts(report: ReportData) -> dict[str, Any]:
    chosen = next(
        (one for one in report.models if one.digest == report.evaluation.model_digest), None
    )
    return {} if chosen is None else _facts(chosen)


def _facts(model: ModelManifest) -> dict[str, Any]:
    members = model.head.get("members", [])
    return {
        "strategy": model.strategy,
        "backbone": model.backbone_label,
        "image px": model.preprocessing.image_px,
        "cut": model.cut,
        "head reads": members[0]["levels"] if members else model.head.get("pooling"),
        "head fits": "; ".join(
            f"{fit['method']} by {fit['scaling']}, penalty {fit['penalty']:.1e}" for fit in members
        ) or None,
        "parameters": model.parameters.total,
        "trainable": model.parameters.trainable,
    }  # fmt: skip


def _metrics(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, MetricPair]:
    names = [*first, *(name for name in second if name not in first)]
    bounds = {f"{name}_{end}" for name in names for end in ("low", "high")}
    return {
        name: MetricPair(
            _finite(first.get(name)), _finite(second.get(name)),
            _interval(first, name), _interval(second, name),
        )
        for name in names if name not in bounds
    }  # fmt: skip


def _interval(metrics: Mapping[str, float], name: str) -> tuple[float, float] | None:
    ends = _finite(metrics.get(f"{name}_low")), _finite(metrics.get(f"{name}_high"))
    return None if ends[0] is None or ends[1] is None else (ends[0], ends[1])


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _compare_images(
    runs: tuple[Run, Run], reports: tuple[ReportData, ReportData]
) -> tuple[Comparison | LabelComparison | None, str]:
    """Return the paired test of the second run against the first, or why there is none."""
    if reports[0].evaluation.classes != reports[1].evaluation.classes:
        return None, "the classes differ"
    kinds = {report.dataset.labels_per_image for report in reports}
    if len(kinds) > 1:
        return None, "one run has several labels an image"
    several = kinds == {"several"}
    try:
        first, second = (
            _read_predictions(run.report.with_name(PREDICTIONS_FILE), several=several)
            for run in runs
        )
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error,
            MemoryError) as error:  # fmt: skip
        return None, f"the predictions cannot be read: {error}"
    if not first.ids or not second.ids:
        return None, "a run has no test images"
    if first.ids != second.ids:
        same = len(set(first.ids) & set(second.ids))
        return None, f"{same} of {len(first.ids)} test images are the same"
    if not np.array_equal(first.true_labels, second.true_labels):
        return None, "the same test images have other labels"
    name = str(runs[0].folder.name)
    if not several:
        return compare(second.correct(), first.correct(), name), ""
    finite = first.finite & second.finite
    if not finite.any():
        return None, "no test image has finite predictions of both runs"
    return compare_labels(
        second.scores[finite], first.scores[finite], first.true_labels[finite] == 1, name, seed=0
    ), ""


@dataclass(frozen=True)
class _Predictions:
    """Predictions of the test images, in the order of their IDs.

    `scores` are float [n, classes]: logits or, with several labels an image, probabilities.
    """

    ids: list[str]
    true_labels: NDArray[np.integer]
    scores: NDArray[np.floating]

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Whether the scores of an image are finite."""
        return np.isfinite(self.scores).all(axis=1)

    def correct(self) -> NDArray[np.bool_]:
        """Return which images are predicted correctly; one without finite scores is not."""
        return self.finite & (self.scores.argmax(axis=1) == self.true_labels)


def _read_predictions(file: Path, *, several: bool) -> _Predictions:
    with zipfile.ZipFile(file), np.load(file, allow_pickle=False) as arrays:
        order = np.argsort(arrays["ids"])
        return _Predictions(
            arrays["ids"][order].tolist(),
            arrays["true_labels"][order],
            arrays["probabilities" if several else "logits"][order],
        )
