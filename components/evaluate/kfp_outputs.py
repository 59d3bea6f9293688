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
from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.manifests import CandidatesManifest, EvaluationManifest, ModelManifest
from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options import GateOptions
from regraft_core.formats.stored_artifacts import copy_artifact, keep
from regraft_core.runtime.addresses import is_remote
from regraft_core.runtime.object_stores import is_store_uri
from regraft_core.runtime.step_reports import log_progress

ROC_POINTS = 200


def evaluate_artifacts(
    candidates: Any,
    dataset: Any,
    outputs: Mapping[str, Any],
    values: Mapping[str, Any],
) -> bool:
    """Run the step on KFP artifacts, fill the outputs, and return whether the gate accepts.

    Args:
        candidates: the artifact with one folder per candidate.
        dataset: the dataset's artifact.
        outputs: `evaluation`, `model`, `metrics`, `classification` and `report`.
        values: those of `GateOptions`, the champion as in `evaluate`, and `work_dir`, the root of
            the content store or "".
    """
    options = select_options(GateOptions, values)
    locations = values.get("champion", ""), values.get("work_dir", "")
    names = CandidatesManifest.read(candidates.path).candidates
    folders = [Path(candidates.path) / name for name in names]
    evaluation = outputs["evaluation"]
    result = _find_or_evaluate(folders, dataset.path, evaluation, options, locations)
    evaluation.metadata.update(
        verdict=result.verdict, strategy=result.strategy, digest=result.digest
    )
    _pass_on(outputs["model"], candidates, folders, result)
    for name, value in result.metrics.items():
        if math.isfinite(value):
            outputs["metrics"].log_metric(name, value)
    folder = Path(evaluation.path)
    _log_classification(outputs["classification"], result, folder)
    Path(outputs["report"].path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / REPORT_FILE, outputs["report"].path)
    return result.verdict == "accepted"


def _find_or_evaluate(
    folders: Sequence[Path],
    dataset: str,
    evaluation: Any,
    options: GateOptions,
    locations: tuple[str, str],
) -> EvaluationManifest:
    """Return the evaluation of an earlier run with the same inputs, or evaluate."""
    champion, work_dir = locations
    on_this_machine = not is_remote(evaluation.uri)
    key = None
    if work_dir:
        key = evaluation_key(folders, dataset, options.model_dump(mode="json"), champion)
    if key and (cached := find_cached(key, work_dir)):
        log_progress("evaluate: nothing has changed since the last evaluation")
        if on_this_machine and not is_store_uri(work_dir):
            evaluation.uri = str(cached)  # the same path, so that kfp's cache knows what follows
        else:
            copy_artifact(cached, Path(evaluation.path))
        return EvaluationManifest.read(cached)
    from components.evaluate.evaluate import evaluate  # imports TensorFlow

    result = evaluate(folders, dataset, evaluation.path, options, champion)
    if key and on_this_machine:
        keep(evaluation, work_dir, key.name, result.file_name, "*.npz")
    elif key:
        ContentStore(work_dir).add_copy(Path(evaluation.path), key.name, result.file_name)
    return result


def _pass_on(
    model: Any, candidates: Any, folders: Sequence[Path], result: EvaluationManifest
) -> None:
    """Make the chosen candidate the output `model`; on this machine it is the same folder."""
    (chosen,) = (f for f in folders if ModelManifest.read(f).digest == result.model_digest)
    if is_remote(candidates.uri):
        copy_artifact(chosen, Path(model.path))
    else:
        model.uri = str(chosen)
    model.metadata.update(digest=result.model_digest, strategy=result.strategy)


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
