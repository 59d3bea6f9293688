"""The KFP outputs of an evaluation: metrics, confusion matrix, ROC curve and the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate.evaluate import evaluate
from components.evaluate.metrics.classification import roc_points
from components.evaluate.report.report import REPORT_FILE
from components.evaluate.report.report_data import PREDICTIONS_FILE
from regraft_core.formats.compared_champion import compared_version
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.model import CandidatesManifest, ModelManifest
from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.stored_artifacts import copy_artifact, keep, origin_of, pass_page
from regraft_core.runtime.addresses import is_remote

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
        values: those of `GateOptions`, the champion as in `evaluate`, `champion_digest` and
            `inputs` as in `compared_version`, and `work_dir`, the root of the content store or "".
    """
    options = select_options(GateOptions, values)
    names = CandidatesManifest.read(candidates.path).candidates
    folders = [Path(candidates.path) / name for name in names]
    evaluation = outputs["evaluation"]
    champion = values.get("champion", "")
    if "champion_digest" in values:
        champion = compared_version(champion, values["champion_digest"], values["inputs"])
    result = evaluate(folders, dataset.path, evaluation.path, options, champion)
    evaluation.metadata.update(
        verdict=result.verdict, strategy=result.strategy, digest=result.digest
    )
    _pass_on(outputs["model"], candidates, folders, result)
    for name, value in result.metrics.items():
        if math.isfinite(value):
            outputs["metrics"].log_metric(name, value)
    folder = Path(evaluation.path)
    _log_classification(outputs["classification"], result, folder)
    for name in ("metrics", "classification"):
        # Only their metadata counts, but kfp's local cache wants a file of each output.
        if not is_remote(outputs[name].uri):
            Path(outputs[name].path).parent.mkdir(parents=True, exist_ok=True)
            Path(outputs[name].path).touch()
    pass_page(evaluation, REPORT_FILE, outputs["report"])
    origin = origin_of("evaluate", values, candidates, dataset)
    keep(evaluation, f"evaluation-{result.digest[:32]}", result.file_name, origin,
         small=(result.file_name,), read_again=False)  # fmt: skip
    return result.verdict == "accepted"


def _pass_on(
    model: Any, candidates: Any, folders: Sequence[Path], result: EvaluationManifest
) -> None:
    """Make the chosen candidate the output `model`; on this machine it is the same folder."""
    # Without a cut point, `top` trains only the head, so two candidates can be the same model.
    chosen = next(f for f in folders if ModelManifest.read(f).digest == result.model_digest)
    if is_remote(candidates.uri):
        copy_artifact(chosen, Path(model.path))
    else:
        model.uri = str(chosen)
    model.metadata.update(digest=result.model_digest, strategy=result.strategy)


def _log_classification(artifact: Any, result: EvaluationManifest, folder: Path) -> None:
    if result.confusion:  # with several labels an image there is none
        artifact.log_confusion_matrix(result.classes, result.confusion)
    with np.load(folder / PREDICTIONS_FILE) as saved:
        probabilities, true_labels = saved["probabilities"], saved["true_labels"]
    finite = np.isfinite(probabilities).all(axis=1)
    if finite.any():
        curve = roc_points(probabilities[finite], true_labels[finite])
        # The UI draws at most a few hundred points; the first and last are kept.
        points = np.unique(np.linspace(0, len(curve[0]) - 1, ROC_POINTS).astype(int))
        artifact.log_roc_curve(*(values[points].tolist() for values in curve))
