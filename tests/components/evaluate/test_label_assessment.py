"""From logits of several labels an image to a verdict, its manifest and the report."""

from __future__ import annotations

import numpy as np
import pytest

from components.evaluate.assessment import Cost, LabeledLogits
from components.evaluate.evaluation_manifest import build_manifest
from components.evaluate.gate.champion import Champion, champion_labels, champion_scores
from components.evaluate.gate.option_checks import check_options
from components.evaluate.gate.selection import choose
from components.evaluate.label_assessment import (
    CURVE_POINTS,
    ChampionScores,
    assess_labels,
    precision_recall_curves,
)
from components.evaluate.report.label_errors import select_label_errors
from components.evaluate.report.report import render
from components.evaluate.report.report_data import LabelError, ReportData
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.served_thresholds import ServedThresholds
from regraft_core.runtime.errors import InputError

CLASSES = ["cat", "dog", "<owl>"]
THRESHOLDS = [0.5, 0.25, 0.75]


def labeled(margin: float, images: int = 300, seed: int = 0) -> LabeledLogits:
    rng = np.random.default_rng(seed)
    true_labels = (rng.random((images, 3)) < [0.5, 0.3, 0.1]).astype(np.uint8)
    logits = rng.normal(0, 1, (images, 3)) + margin * (2.0 * true_labels - 1)
    return LabeledLogits(logits.astype(np.float32), true_labels)


def assessed(test: LabeledLogits, champion: ChampionScores | None = None, **options):
    gate = GateOptions(**options)
    return assess_labels(
        test, THRESHOLDS, CLASSES, gate, cost=Cost(model_mb=3.0), champion=champion
    )


def failed(assessment) -> list[str]:
    return [check.name for check in assessment.verdict.checks if not check.passed]


def test_a_good_model_is_accepted_with_all_its_metrics() -> None:
    result = assessed(labeled(2.5), min_map=0.9, min_macro_f1=0.8, max_calibration_error=0.2)
    assert failed(result) == []
    for name in ("mean_average_precision", "macro_f1", "micro_f1", "exact_match", "log_loss",
                 "calibration_error", "chance_map", "lowest_recall_high", "model_mb"):  # fmt: skip
        assert np.isfinite(result.metrics.values[name])
    assert result.labels is not None and result.labels.thresholds == THRESHOLDS
    assert result.temperature == 1.0 and len(result.reliability_after) > 3


@pytest.mark.parametrize(
    ("margin", "options", "names"),
    [
        (1.0, {"min_map": 0.95}, ["mAP"]),
        (1.0, {"min_macro_f1": 0.9}, ["macro F1"]),
        (0.0, {"recall_floor": 0.0}, ["baseline"]),
        (1.0, {"min_recall_by_class": {"<owl>": 0.95}}, ["recall of <owl>"]),
        (1.0, {"max_calibration_error": 0.001}, ["calibration error"]),
    ],
)
def test_each_check_can_fail(margin, options, names) -> None:
    assert failed(assessed(labeled(margin), **options)) == names


def test_a_class_that_is_never_predicted_is_below_the_recall_floor() -> None:
    test = labeled(2.5)
    test.logits[:, 2] -= 8
    result = assessed(test)
    assert failed(result) == ["recall floor"]
    assert result.metrics.per_class[2].recall == 0
    # Its ranking is still good, so the average precision does not show this.
    assert result.labels is not None and result.labels.average_precisions[2] > 0.9


def test_minimums_are_reached_by_the_lower_bound_or_by_the_estimate() -> None:
    score = assessed(labeled(1.0)).metrics.values["mean_average_precision"]
    assert failed(assessed(labeled(1.0), min_map=score)) == ["mAP"]
    assert failed(assessed(labeled(1.0), min_map=score, accuracy_rule="point")) == []


def test_an_empty_test_split_never_passes() -> None:
    nothing = LabeledLogits(np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8))
    expected = ["test images", "mAP", "baseline", "recall floor"]
    assert failed(assessed(nothing)) == expected
    champion = ChampionScores("pets version 3", np.empty((0, 3)))
    assert failed(assessed(nothing, champion)) == [*expected, "champion"]


def test_one_label_is_a_question_of_yes_or_no() -> None:
    several = labeled(2.5)
    test = LabeledLogits(several.logits[:, :1], several.true_labels[:, :1])
    cost = Cost(model_mb=16.0)
    result = assess_labels(test, [0.5], ["yes"], GateOptions(recall_floor=0.0), cost=cost)
    assert result.verdict.accepted and result.metrics.values["chance_map"] < 0.6


def test_one_prediction_that_is_not_finite_fails_the_gate() -> None:
    test = labeled(2.5)
    test.logits[7, 1] = np.nan
    result = assessed(test)
    assert failed(result) == ["predictions"]
    assert np.isnan(result.probabilities[7]).all()


def test_the_champion_decides_by_the_mean_average_precision() -> None:
    test, better = labeled(1.0), labeled(2.5)
    champion = ChampionScores("pets version 3", better.logits)
    assert failed(assessed(test, champion)) == ["champion"]
    assert failed(assessed(test, champion, champion_margin=0.02)) == ["champion", "champion margin"]
    weaker = ChampionScores("pets version 3", test.logits)
    result = assessed(better, weaker, champion_policy="better")
    assert failed(result) == []
    assert result.metrics.values["champion_difference_low"] > 0


def dataset(labels_per_image: str) -> DatasetManifest:
    made_by = {"step": "ingest", "version": "0", "seconds": 1.0}
    return DatasetManifest(
        digest="d" * 64, made_by=made_by, classes=CLASSES, labels_per_image=labels_per_image,
        splits={}, sources=["table.jsonl"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("labels_per_image", "options", "text"),
    [
        ("several", {"min_accuracy": 0.9}, "min-accuracy: not available with several labels"),
        ("several", {"coverage": 0.9}, "coverage: not available with several labels"),
        ("several", {"abstain_precision": 0.9}, "abstain-precision: not available"),
        ("several", {"corruption_images": 9}, "corruption-images: not available"),
        ("one", {"min_map": 0.9}, "min-map: not available with one label an image, got 0.9; use "
         "--min-accuracy"),
        ("one", {"min_macro_f1": 0.9}, "min-macro-f1: not available with one label"),
    ],
)  # fmt: skip
def test_options_for_another_number_of_labels_are_refused(labels_per_image, options, text) -> None:
    with pytest.raises(InputError, match=text):
        check_options(GateOptions(**options), dataset(labels_per_image))


def test_the_digest_covers_the_thresholds_that_are_exported(candidate_of) -> None:
    models = [candidate_of("head", 0.9, activation="sigmoid", thresholds=THRESHOLDS)]
    result = assessed(labeled(2.5))
    first = build_manifest(result, models, choose(models), dataset("several"), None, 1.0)
    assert ServedThresholds.of(first.details).by_label == tuple(THRESHOLDS)
    assert first.confusion == []
    moved = assess_labels(labeled(2.5), [0.5, 0.25, 0.7500001], CLASSES, GateOptions(), cost=Cost())
    second = build_manifest(moved, models, choose(models), dataset("several"), None, 1.0)
    assert second.digest != first.digest


def test_worst_missed_and_false_labels_are_farthest_from_their_thresholds() -> None:
    true_labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]])
    probabilities = np.array([[0.1, 0.9, 0.1], [0.4, 0.3, 0.2], [0.1, 0.2, 0.74], [np.nan] * 3])
    missed, false = select_label_errors(probabilities, true_labels, THRESHOLDS)
    assert missed == [(0, 0), (1, 0), (2, 2)]
    assert false == [(0, 1)]


def test_the_report_shows_labels_curves_and_errors_without_markup_of_names(candidate_of) -> None:
    models = [candidate_of("head", 0.9, classes=CLASSES)]
    champion = ChampionScores("pets version 3", labeled(1.0).logits)
    result = assessed(labeled(1.5), champion, min_map=0.8)
    evaluation = build_manifest(result, models, choose(models), dataset("several"), None, 1.0)
    curves = precision_recall_curves(result, CLASSES)
    assert [*curves] == CLASSES and max(map(len, curves.values())) <= CURVE_POINTS
    data = ReportData(
        evaluation=evaluation, dataset=dataset("several"), models=models, precision_recall=curves,
        label_errors=[LabelError(kind="missed", path="<b>.png", label="<owl>", probability=0.1,
                                 threshold=0.75, true_labels=["cat", "<owl>"], image="data:,")],
        options=GateOptions(min_map=0.8).model_dump(),
    )  # fmt: skip
    page = render(ReportData.model_validate_json(data.model_dump_json()))
    for text in ("Mean average precision 9", "mean over labels", "Precision over recall",
                 "missed <b class=\"predicted\">&lt;owl&gt;</b> 10.0%, threshold 75.0%",
                 "true labels <b>cat, &lt;owl&gt;</b>", "paired bootstrap",
                 "required 80.0%"):  # fmt: skip
        assert text in page, text
    assert page.count('class="chart precision-recall"') == 3
    assert "<owl>" not in page and "Confusion matrix" not in page and "temperature" not in page


def test_a_champion_for_one_label_is_refused(publish, dataset) -> None:
    data = DatasetManifest.read(dataset)
    folder = publish(1, correct=True)
    champion = Champion(folder, tuple(data.classes), digest_of([]))
    with pytest.raises(InputError, match=r"predicts one label an image.*new --model-name"):
        champion_scores(champion, [b"-"], 8, data.classes)
    assert champion_labels(champion, [b"-"], 8).tolist() == [data.classes[0]]
