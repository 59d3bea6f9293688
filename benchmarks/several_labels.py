"""How well a head predicts several labels of an image, and what its choices are worth.

    regraft bench several_labels --json benchmarks/results/several_labels.json

`digit-pairs`: images of one or two of scikit-learn's digits (`benchmarks/digit_pairs.py`), whose
test images show other digits than the training images. The head is that of a run.
`choices`: heads of parts of the same training images, measured on the validation images. One
penalty for all labels is compared with one for each label, and Platt scaling of each label with one
temperature for all labels and with no calibration.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.digit_pairs import write_digit_pairs
from benchmarks.result import Measurement, Metric, read_metrics, run_benchmark
from regraft_core.training.linear_head.head_rows import HeadRows

PARTS = ("digit-pairs", "choices")
BACKBONE, IMAGE_PX = "efficientnet_lite0", 128
SIZES, SEEDS = (60, 120, 250), 4
Floats = NDArray[np.float64]


def measure_digit_pairs(made: Path, work: Path) -> Iterator[tuple[str, Metric]]:
    """Yield the metrics of the head on the test images.

    Args:
        made: folder with `dataset` and `features`.
        work: an empty folder.
    """
    from sklearn.metrics import average_precision_score

    from components.evaluate.predict import build_runner, predict
    from components.fine_tune.fine_tune import fine_tune
    from components.train_head.train_head import train_head
    from regraft_core.formats.label_arrays import label_array
    from regraft_core.formats.manifests.dataset import DatasetManifest
    from regraft_core.formats.options.fine_tune import FineTuneOptions
    from regraft_core.formats.options.train_head import HeadOptions
    from regraft_core.formats.records import read_split
    from regraft_core.training.model_files import load_model
    from regraft_core.training.multilabel_head.binary_regressions import binary_losses
    from regraft_core.training.multilabel_head.label_thresholds import (
        f1_scores,
        served_probabilities,
    )

    dataset, features, head = made / "dataset", made / "features", work / "head"
    train_head([features], head, HeadOptions())
    fine_tune(dataset, [features], head, work / "candidate", FineTuneOptions(strategy="head"))
    model, manifest = load_model(work / "candidate")
    (test,) = predict(build_runner(model, manifest.preprocessing), dataset, ["test"], 64)
    known = label_array(list(read_split(dataset, "test")), DatasetManifest.read(dataset))
    probabilities = served_probabilities(test.logits)
    macro, micro = f1_scores(probabilities >= np.array(manifest.thresholds, np.float32), known)
    yield "test_images", Metric(len(known), "images")
    yield "test_map", Metric(float(average_precision_score(known, test.logits)), "", ">= 0.97")
    yield "test_macro_f1", Metric(macro)
    yield "test_micro_f1", Metric(micro)
    yield "test_log_loss", Metric(float(binary_losses(test.logits, known).mean()))


def measure_choices(features: Path) -> Iterator[tuple[str, Metric]]:
    """Yield the mean metrics of each choice by the number of training images."""
    train, validation = _rows(features, "train"), _rows(features, "validation")
    for size in SIZES:
        found: dict[str, list[float]] = defaultdict(list)
        for seed in range(SEEDS):
            kept = np.sort(np.random.default_rng(seed).permutation(len(train))[:size])
            part = replace(
                train, parts=[train.take(kept)], labels=train.labels[kept],
                images=train.images[kept],
            )  # fmt: skip
            with threadpool_limits(1, "blas"):
                compared = compare_choices(part, validation, seed)
            for name, value in compared.items():
                found[name].append(value)
        for name, values in found.items():
            yield f"{name}_{size}", Metric(mean(values))


def _rows(features: Path, split: str) -> HeadRows:
    """Return the features of all levels of a split."""
    from regraft_core.formats.manifests.features import FeaturesManifest
    from regraft_core.training.feature_store import LEVELS, FeatureRows

    rows = FeatureRows([features], split, LEVELS)  # type: ignore[arg-type]
    values = np.concatenate(rows.parts()).astype(np.float32)
    widths = [level.width for level in FeaturesManifest.read(features).levels]
    return HeadRows(
        [values], rows.labels, rows.groups(), values.mean(axis=0), values.var(axis=0), widths
    )


@dataclass(frozen=True)
class _Fitted:
    """Logits of the training images by fits that did not see them, and of other images."""

    held_out: Floats
    others: Floats


def compare_choices(rows: HeadRows, others: HeadRows, seed: int) -> dict[str, float]:
    """Return mAP and log loss on other images, by choice of the penalty and of the calibration."""
    from sklearn.metrics import average_precision_score

    from regraft_core.training.multilabel_head.binary_regressions import binary_losses
    from regraft_core.training.multilabel_head.platt_scaling import PlattScaling

    common, own = (_fit(rows, others, seed, own=one) for one in (False, True))
    platt = PlattScaling.fit(common.held_out, rows.labels)
    logits = {
        "uncalibrated": common.others,
        "temperature": common.others / _temperature(common.held_out, rows.labels),
        "platt": platt.logits(common.others),
    }
    return {
        "common_penalty_map": float(average_precision_score(others.labels, common.others)),
        "own_penalties_map": float(average_precision_score(others.labels, own.others)),
        **{f"{name}_log_loss": float(binary_losses(found, others.labels).mean())
           for name, found in logits.items()},
    }  # fmt: skip


def _fit(rows: HeadRows, others: HeadRows, seed: int, *, own: bool) -> _Fitted:
    """Fit the labels with the penalty that is best for all of them, or with their own ones."""
    from regraft_core.training.linear_head.head_rows import scalings
    from regraft_core.training.linear_head.held_out_fits import PATHS
    from regraft_core.training.linear_head.logistic_fits import held_out_regressions, make_problem
    from regraft_core.training.multilabel_head.binary_regressions import (
        BINARY,
        binary_losses,
        prior_classifiers,
        solve_labels,
    )
    from regraft_core.training.multilabel_head.label_selection import deal_label_folds

    targets, ones = rows.labels.astype(np.float64), np.ones(len(rows))
    fold_of = deal_label_folds(rows.labels, rows.images, 5, seed)
    scaling = scalings(rows)["level"]
    penalties = [10.0**exponent for exponent in PATHS["logistic"]]
    scaled = scaling.apply(rows.parts[0])
    path = held_out_regressions(scaled, targets, ones, fold_of, BINARY, penalties)
    tried = np.stack([fitted.logits for fitted in path])
    losses = np.stack([binary_losses(logits, targets).mean(axis=0) for logits in tried])
    chosen = losses.argmin(axis=0) if own else np.full(targets.shape[1], losses.mean(1).argmin())
    problem, axes = make_problem(rows, targets, ones, scaling, np.arange(len(rows)))
    assert axes is not None
    fitted = solve_labels(
        problem, np.array(penalties)[chosen], prior_classifiers(targets, len(problem.squares))
    )
    weights = axes.to_features(fitted)
    held_out = np.take_along_axis(tried, chosen[None, None], axis=0)[0]
    return _Fitted(held_out, weights.logits(scaling.apply(others.parts[0])))


def _temperature(logits: Floats, labels: NDArray[np.integer]) -> float:
    """Return the temperature of all labels with the lowest log loss."""
    from scipy.optimize import minimize_scalar

    from regraft_core.training.multilabel_head.binary_regressions import binary_losses

    found = minimize_scalar(
        lambda log: binary_losses(logits * math.exp(log), labels).mean(),
        bounds=(-5.0, 5.0), method="bounded",
    )  # fmt: skip
    return math.exp(-found.x)


def measure(options: argparse.Namespace) -> Measurement:
    """Measure the chosen parts; metrics of the others are kept."""
    from components.extract_features.extract_features import extract_features
    from components.ingest.ingest import ingest
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.ingest import IngestOptions

    metrics = read_metrics(options.json)
    with tempfile.TemporaryDirectory(prefix="regraft-several-labels-") as folder:
        work = Path(folder)
        made = options.work or work
        if not (made / "features").exists():
            table = write_digit_pairs(made / "images", options.images)
            ingest([str(table)], made / "dataset", IngestOptions(processes=1))
            extraction = FeatureOptions(
                backbone=BACKBONE, image_px=IMAGE_PX, keep_cut=False, feature_engine="tf",
                precision="float32",
            )  # fmt: skip
            extract_features(made / "dataset", made / "features", extraction)
        if "digit-pairs" in options.parts:
            metrics |= dict(measure_digit_pairs(made, work))
        if "choices" in options.parts:
            metrics |= dict(measure_choices(made / "features"))
    conditions = (
        f"{options.images} images of one or two digits, features of {BACKBONE} at "
        f"{IMAGE_PX} px; choices: {SEEDS} seeds for each size"
    )
    return Measurement(conditions, metrics, options.parts)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the number of images, the parts to measure, and where their features are kept."""
    parser.add_argument("--images", type=int, default=3000, help="Number of images.")
    parser.add_argument(
        "--work", type=Path, help="Folder to keep dataset and features in, for other runs."
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="Parts to measure."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("several_labels", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
