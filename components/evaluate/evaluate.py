"""The evaluation step: choose on validation, measure on test, apply the gate, write the report."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np

from components.evaluate.assessment import (
    Assessment,
    ChampionResult,
    Cost,
    LabeledLogits,
    Slices,
    assess,
)
from components.evaluate.corrupted_predictions import Robustness, measure_robustness
from components.evaluate.evaluation_manifest import build_manifest
from components.evaluate.gate.champion import (
    Champion,
    champion_labels,
    champion_scores,
    check_classes,
    find_champion,
)
from components.evaluate.gate.gate import DEFAULT_RULE
from components.evaluate.gate.option_checks import check_options
from components.evaluate.gate.selection import Choice, choose
from components.evaluate.label_assessment import (
    ChampionScores,
    assess_labels,
    precision_recall_curves,
)
from components.evaluate.metrics.ood_images import read_ood_images
from components.evaluate.metrics.ood_score import OodScores
from components.evaluate.predict import (
    Predictions,
    Runner,
    build_runner,
    measure_latency_ms,
    predict,
    predict_encoded,
)
from components.evaluate.report.error_gallery import Gallery, build_gallery
from components.evaluate.report.image_explanation import ImageExplainer
from components.evaluate.report.label_errors import show_label_errors
from components.evaluate.report.report import REPORT_FILE, render
from components.evaluate.report.report_data import (
    PREDICTIONS_FILE,
    ReliabilityBin,
    ReportData,
    installed_versions,
    without_shards,
)
from regraft_core.formats.manifest_storage import staged_folder, write_text
from regraft_core.formats.manifests.dataset import DatasetManifest, Split
from regraft_core.formats.manifests.evaluation import Check, EvaluationManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.records import read_split
from regraft_core.formats.stored_artifacts import content_file
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.runtime.out_of_memory import explain_out_of_memory, with_halved_batches
from regraft_core.runtime.step_reports import Clock, log_progress
from regraft_core.training.batch_limit import fitting_batch
from regraft_core.training.linear_head.refitted_head import RefittedHead
from regraft_core.training.model_files import MODEL_FILE, load_model
from regraft_core.training.ood_detector import OodDetector

LATENCY_IMAGES = 22


@explain_out_of_memory()
def evaluate(
    candidates: Sequence[str | os.PathLike[str]],
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: GateOptions,
    champion: str = "",
) -> EvaluationManifest:
    """Choose the best candidate on validation and apply the gate to its test predictions.

    Args:
        candidates: folders of complete candidates, all trained on `dataset`.
        dataset: the dataset's folder.
        out: receives `evaluation.json`, `predictions.npz`, `report.json` and `report.html`.
        options: the thresholds.
        champion: folder or URI of the champion or of one of its versions; may be empty or not
            exist yet.

    Raises:
        InputError: the candidates, the dataset and the champion do not match.
        RegraftError: the memory is exhausted.
    """
    clock = Clock()
    # Served predictions are computed without TF32, so those that are judged are, too.
    set_up_gpus(GpuSetup.of(options, tf32=False))
    data = DatasetManifest.read(dataset)
    manifests = [ModelManifest.read(folder) for folder in candidates]
    choice = choose(manifests)
    for manifest in manifests:
        _check_same_data(manifest, data)
    check_options(options, data)
    several = data.labels_per_image == "several"
    champion_result = None if several else _run_champion(champion, dataset, data.classes, options)
    label_champion = _run_label_champion(champion, dataset, data, options) if several else None
    ood_images = read_ood_images(options.ood_images) if options.ood_images else []
    model, manifest = load_model(candidates[choice.index])
    log_progress(f"evaluate: chose {manifest.strategy} of {len(manifests)} on validation")
    for reason in choice.reasons:
        log_progress(f"evaluate: {reason}")
    detector = OodDetector.read(candidates[choice.index], manifest.ood_detector)
    runner = build_runner(model, manifest.preprocessing, detector)
    held_out, out_of_fold = _logits_before_refit(candidates[choice.index], manifest)
    # With several labels an image, what validation decides is in the candidate's manifest.
    splits: tuple[Split, ...] = ("test",) if held_out or several else ("test", "validation")
    predictions, batch_size = with_halved_batches(
        "evaluate",
        fitting_batch("evaluate", options.batch_size, model, options.gpu_memory_mb),
        lambda size: predict(runner, dataset, splits, size),
    )
    test, validation = predictions[0], predictions[-1]
    robustness = _measure_robustness(runner, dataset, data, options, batch_size)
    cost = _cost(candidates[choice.index], manifest, choice, runner, dataset)
    ood_scores = (
        OodScores(
            detector.validation_scores,
            test.ood_scores,
            predict_encoded(runner, ood_images, batch_size)[1],
        )
        if detector
        else None
    )
    slices = Slices(list(data.slices), test.slices, data.slices)
    tested = LabeledLogits(test.logits, test.true_labels, slices)
    if several:
        assessment = assess_labels(
            tested, manifest.thresholds, data.classes, options, cost=cost, champion=label_champion,
            ood_scores=ood_scores,
        )  # fmt: skip
    else:
        assessment = assess(
            held_out or LabeledLogits(validation.logits, validation.true_labels),
            tested,
            data.classes,
            options,
            cost=replace(cost, corruption_drops=robustness.drops),
            champion=champion_result,
            ood_scores=ood_scores,
            out_of_fold=out_of_fold,
        )
    compared = champion_result or label_champion
    champion_data = compared.dataset_digest if compared else None
    evaluation = build_manifest(
        assessment, manifests, choice, data, champion_data, clock.seconds, robustness.drops
    )
    explainer = ImageExplainer(model, manifest.preprocessing, runner.load, dataset)
    errors = Gallery([]) if several else build_gallery(explainer, assessment, data.classes)
    report = _report(evaluation, data, manifests, assessment, errors, options, robustness)
    if several:
        report = report.model_copy(
            update={
                "label_errors": show_label_errors(
                    explainer, assessment, manifest.thresholds, data.classes
                ),
                "gallery_note": explainer.note,
                "precision_recall": precision_recall_curves(assessment, data.classes),
            }
        )
    _write(out, evaluation, report, test, assessment)
    for check in evaluation.checks:
        if check.name in DEFAULT_RULE:
            log_progress(f"evaluate: {describe_check(check)}")
    log_progress(f"evaluate: {evaluation.verdict}")
    return evaluation


def describe_check(check: Check) -> str:
    """Return a check in one line, without the explanations of its numbers if it passed."""
    received, expected = check.received, check.expected
    if check.passed:
        received, expected = (text.partition(" (")[0] for text in (received, expected))
    return f"{check.name} {received}, expected {expected}"


def _logits_before_refit(
    folder: str | os.PathLike[str], manifest: ModelManifest
) -> tuple[LabeledLogits | None, LabeledLogits | None]:
    """Return logits of validation and of train by weights that were not fitted to these images.

    Both are None if the model was not fitted to validation.
    """
    refitted = RefittedHead.of_candidate(folder, manifest)
    if refitted is None:
        return None, None
    return (
        LabeledLogits(refitted.validation_logits, refitted.validation_labels),
        LabeledLogits(refitted.held_out_logits, refitted.held_out_labels),
    )


def _check_same_data(manifest: ModelManifest, data: DatasetManifest) -> None:
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
    if data.labels_per_image == "several" and len(manifest.thresholds) != len(data.classes):
        raise InputError(
            f"candidate {manifest.strategy}: expected {len(data.classes)} thresholds, one for each "
            f"class, got {len(manifest.thresholds)}; train it again"
        )


def _cost(
    folder: str | os.PathLike[str],
    manifest: ModelManifest,
    choice: Choice,
    runner: Runner,
    dataset: str | os.PathLike[str],
) -> Cost:
    images = [record.encoded for record in islice(read_split(dataset, "test"), LATENCY_IMAGES)]
    known = np.isfinite(choice.head_accuracy)
    return Cost(
        model_mb=content_file(folder, MODEL_FILE).stat().st_size / 1e6,
        latency_ms=measure_latency_ms(runner, images),
        validation_accuracy=manifest.validation_accuracy,
        head_validation_accuracy=choice.head_accuracy if known else None,
    )


def _measure_robustness(
    runner: Runner,
    dataset: str | os.PathLike[str],
    data: DatasetManifest,
    options: GateOptions,
    batch_size: int,
) -> Robustness:
    images = min(options.corruption_images, data.splits["test"].count)
    if not images:
        return Robustness()
    return measure_robustness(runner, dataset, images, batch_size, options.seed)


def _run_champion(
    location: str,
    dataset: str | os.PathLike[str],
    classes: list[str],
    options: GateOptions,
) -> ChampionResult | None:
    with _champion_at(location, classes) as champion:
        if champion is None:
            return None
        records = list(read_split(dataset, "test"))
        encoded = [record.encoded for record in records]
        predicted = champion_labels(champion, encoded, options.batch_size)
    true_labels = np.array([classes[record.label] for record in records])
    return ChampionResult(champion.name, predicted == true_labels, champion.dataset_digest)


def _run_label_champion(
    location: str, dataset: str | os.PathLike[str], data: DatasetManifest, options: GateOptions
) -> ChampionScores | None:
    with _champion_at(location, data.classes) as champion:
        if champion is None:
            return None
        encoded = [record.encoded for record in read_split(dataset, "test")]
        scores = champion_scores(champion, encoded, options.batch_size, data.classes)
    return ChampionScores(champion.name, scores, champion.dataset_digest)


@contextlib.contextmanager
def _champion_at(location: str, classes: Sequence[str]) -> Iterator[Champion | None]:
    """Yield the champion, with its classes checked, or None; a copy of it is removed after."""
    with tempfile.TemporaryDirectory(prefix="regraft-champion-") as work:
        champion = find_champion(location, Path(work))
        if champion is not None:
            check_classes(champion, classes)
        yield champion


def _report(
    evaluation: EvaluationManifest,
    data: DatasetManifest,
    manifests: Sequence[ModelManifest],
    assessment: Assessment,
    errors: Gallery,
    options: GateOptions,
    robustness: Robustness,
) -> ReportData:
    return ReportData(
        evaluation=evaluation,
        dataset=without_shards(data),
        models=list(manifests),
        reliability_before=[ReliabilityBin(**asdict(b)) for b in assessment.reliability_before],
        reliability_after=[ReliabilityBin(**asdict(b)) for b in assessment.reliability_after],
        gallery=errors.items,
        gallery_note=errors.note,
        corruption_examples=robustness.examples,
        versions=installed_versions(),
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
