"""The evaluation step: choose on validation, measure on the test split, judge, report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np

from components.evaluate.assess import Assessment, ChampionResult, Cost, LabeledLogits, assess
from components.evaluate.evaluation_manifest import build_manifest
from components.evaluate.gate.champion import champion_labels, find_champion, require_same_classes
from components.evaluate.gate.selection import Choice, choose
from components.evaluate.metrics.ood_images import read_ood_images
from components.evaluate.predict import (
    Predictions,
    Runner,
    latency_ms,
    predict,
    predict_encoded,
    runner_of,
)
from components.evaluate.report.gallery import Gallery, gallery
from components.evaluate.report.report import REPORT_FILE, render
from components.evaluate.report.report_data import (
    PREDICTIONS_FILE,
    ReliabilityBin,
    ReportData,
    versions,
    without_shards,
)
from regraft_core.formats.manifest_storage import staged_folder, write_text
from regraft_core.formats.manifests import DatasetManifest, EvaluationManifest, ModelManifest
from regraft_core.formats.options import GateOptions
from regraft_core.formats.records import read_split
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.step import Clock, log_progress
from regraft_core.training.model_files import MODEL_FILE, load_model

LATENCY_IMAGES = 22


def evaluate(
    candidates: Sequence[str | os.PathLike[str]],
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: GateOptions,
    champion: str = "",
) -> EvaluationManifest:
    """Choose the best candidate on validation and decide on the test split whether it may go out.

    Args:
        candidates: folders of complete candidates, all trained on `dataset`.
        dataset: the dataset's folder.
        out: receives `evaluation.json`, `predictions.npz`, `report.json` and `report.html`.
        options: the thresholds.
        champion: folder or address of the model in service, or of one of its versions; may be
            empty or not exist yet.

    Raises:
        InputError: the candidates, the dataset and the champion do not belong together.
    """
    clock = Clock()
    data = DatasetManifest.read(dataset)
    manifests = [ModelManifest.read(folder) for folder in candidates]
    choice = choose(manifests)
    for manifest in manifests:
        _require_same_data(manifest, data)
    _require_known_floors(options, data.classes)
    rival = _champion_said(champion, dataset, data.classes, options)
    strangers = read_ood_images(options.ood_images) if options.ood_images else []
    model, manifest = load_model(candidates[choice.index])
    log_progress(f"evaluate: {manifest.strategy} chosen of {len(manifests)} on validation")
    runner = runner_of(model, manifest.preprocessing)
    validation, test = predict(runner, dataset, ("validation", "test"), options.batch_size)
    assessment = assess(
        LabeledLogits(validation.logits, validation.true_labels),
        LabeledLogits(test.logits, test.true_labels),
        data.classes,
        options,
        cost=_cost(candidates[choice.index], manifest, choice, runner, dataset),
        champion=rival,
        unfamiliar=predict_encoded(runner, strangers, options.batch_size) if strangers else None,
    )
    rival_data = rival.dataset_digest if rival else None
    evaluation = build_manifest(assessment, manifests, choice, data, rival_data, clock.seconds)
    mistakes = gallery(
        model, manifest.preprocessing, runner.load, dataset, assessment, data.classes
    )
    report = _report(evaluation, data, manifests, assessment, mistakes, options)
    _write(out, evaluation, report, test, assessment)
    log_progress(f"evaluate: {evaluation.verdict}")
    return evaluation


def _require_same_data(manifest: ModelManifest, data: DatasetManifest) -> None:
    if manifest.kind != "candidate":
        raise InputError(f"expected a complete candidate, got a {manifest.kind}")
    if manifest.classes != data.classes:
        raise InputError(
            f"candidate {manifest.strategy}: expected the classes {data.classes}, "
            f"got {manifest.classes}"
        )
    if manifest.dataset_digest != data.digest:
        raise InputError(
            f"candidate {manifest.strategy}: expected training on dataset {data.digest[:12]}, "
            f"got {manifest.dataset_digest[:12]}"
        )


def _require_known_floors(options: GateOptions, classes: list[str]) -> None:
    unknown = sorted(set(options.min_recall_by_class) - set(classes))
    if unknown:
        raise InputError(f"min_recall_by_class: expected names among {classes}, got {unknown}")


def _cost(
    folder: str | os.PathLike[str],
    manifest: ModelManifest,
    choice: Choice,
    runner: Runner,
    dataset: str | os.PathLike[str],
) -> Cost:
    some = [record.encoded for record in islice(read_split(dataset, "test"), LATENCY_IMAGES)]
    return Cost(
        model_mb=(Path(folder) / MODEL_FILE).stat().st_size / 1e6,
        latency_ms=latency_ms(runner, some),
        validation_accuracy=manifest.validation_accuracy,
        head_validation_accuracy=choice.floor if np.isfinite(choice.floor) else None,
    )


def _champion_said(
    place: str,
    dataset: str | os.PathLike[str],
    classes: list[str],
    options: GateOptions,
) -> ChampionResult | None:
    with tempfile.TemporaryDirectory(prefix="regraft-champion-") as work:
        rival = find_champion(place, Path(work))
        if rival is None:
            return None
        require_same_classes(rival, classes)
        records = list(read_split(dataset, "test"))
        said = champion_labels(rival, [record.encoded for record in records], options.batch_size)
    true_labels = np.array([classes[record.label] for record in records])
    return ChampionResult(rival.name, said == true_labels, rival.dataset_digest)


def _report(
    evaluation: EvaluationManifest,
    data: DatasetManifest,
    manifests: Sequence[ModelManifest],
    assessment: Assessment,
    mistakes: Gallery,
    options: GateOptions,
) -> ReportData:
    return ReportData(
        evaluation=evaluation,
        dataset=without_shards(data),
        models=list(manifests),
        reliability_before=[ReliabilityBin(**asdict(b)) for b in assessment.reliability_before],
        reliability_after=[ReliabilityBin(**asdict(b)) for b in assessment.reliability_after],
        gallery=mistakes.items,
        gallery_note=mistakes.note,
        versions=versions(),
        options=options.model_dump(),
    )


def _write(
    out: str | os.PathLike[str],
    evaluation: EvaluationManifest,
    report: ReportData,
    test: Predictions,
    assessment: Assessment,
) -> None:
    with staged_folder(out) as folder:
        np.savez_compressed(
            folder / PREDICTIONS_FILE,
            ids=np.array(test.ids, dtype=np.str_),
            paths=np.array(
                [path.encode("utf-8", "replace").decode() for path in test.paths], dtype=np.str_
            ),
            true_labels=test.true_labels,
            logits=test.logits,
            probabilities=assessment.probabilities.astype(np.float32),
        )
        write_text(folder / ReportData.file_name, report.model_dump_json() + "\n")
        write_text(folder / REPORT_FILE, render(report))
        evaluation.write(folder)
