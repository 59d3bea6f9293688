"""The KFP outputs of an evaluation: metrics, confusion matrix, ROC curve and the report."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate.evaluation_cache import evaluation_key, find_cached
from components.evaluate.metrics.classification import roc_points
from components.evaluate.report.report import REPORT_FILE
from components.evaluate.report.report_data import PREDICTIONS_FILE
from regraft_core.formats.content_folder import keep_by_content, kept_folder
from regraft_core.formats.manifests import EvaluationManifest
from regraft_core.formats.option_parsing import parse_options
from regraft_core.formats.options import GateOptions
from regraft_core.runtime.step_reports import log_progress

ROC_POINTS = 200


def evaluate_artifacts(
    candidates: Sequence[Any],
    dataset: Any,
    outputs: Mapping[str, Any],
    gate: Mapping[str, Any],
    champion: str,
) -> bool:
    """Run the step on KFP artifacts, fill the outputs, and return whether the gate accepts.

    Args:
        candidates: artifacts with a `path`.
        dataset: an artifact with a `path`.
        outputs: `evaluation`, `metrics`, `classification` and `report`.
        gate: the values of `GateOptions`.
        champion: as `evaluate`.
    """
    options = parse_options(GateOptions, **gate)
    folders = [Path(candidate.path) for candidate in candidates]
    result = _find_or_evaluate(folders, dataset.path, outputs["evaluation"], options, champion)
    folder = Path(outputs["evaluation"].path)
    outputs["evaluation"].metadata.update(
        verdict=result.verdict, strategy=result.strategy, digest=result.digest
    )
    for name, value in result.metrics.items():
        if math.isfinite(value):
            outputs["metrics"].log_metric(name, value)
    _log_classification(outputs["classification"], result, folder)
    Path(outputs["report"].path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / REPORT_FILE, outputs["report"].path)
    return result.verdict == "accepted"


def _find_or_evaluate(
    folders: Sequence[Path], dataset: str, evaluation: Any, options: GateOptions, champion: str
) -> EvaluationManifest:
    """Return the evaluation of an earlier local run with the same inputs, or evaluate."""
    key = None
    if "://" not in evaluation.uri:
        key = evaluation_key(folders, dataset, options.model_dump(mode="json"), champion)
    if key and (cached := find_cached(key, kept_folder(evaluation))):
        log_progress("evaluate: nothing has changed since the last evaluation")
        evaluation.uri = str(cached)
        return EvaluationManifest.read(cached)
    from components.evaluate.evaluate import evaluate  # imports TensorFlow

    result = evaluate(folders, dataset, evaluation.path, options, champion)
    if key:
        keep_by_content(evaluation, key.digest)
    return result


def _log_classification(artifact: Any, result: EvaluationManifest, folder: Path) -> None:
    artifact.log_confusion_matrix(result.classes, result.confusion)
    with np.load(folder / PREDICTIONS_FILE) as saved:
        probabilities, true_labels = saved["probabilities"], saved["true_labels"]
    finite = np.isfinite(probabilities).all(axis=1)
    if finite.any():
        curve = roc_points(probabilities[finite], true_labels[finite])
        # The UI draws at most a few hundred points; the first and last are kept.
        points = np.unique(np.linspace(0, len(curve[0]) - 1, ROC_POINTS).astype(int))
        artifact.log_roc_curve(*(values[points].tolist() for values in curve))
