"""Coverage of prediction sets, and precision where the model does not abstain, over several splits.

    regraft bench coverage --json benchmarks/results/coverage.json

The digits of scikit-learn with another split for each seed, the heads of two backbones: one that is
nearly always correct, and the small `tiny`. The thresholds come from out-of-fold scores, as in a
run; coverage, mean size and precision are those of all test images together, and the lowest ones
those of a single split.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.result import Measurement, Metric, run_benchmark

if TYPE_CHECKING:
    from components.evaluate.assessment import Assessment
    from components.evaluate.metrics.abstention import Abstention
    from components.evaluate.metrics.prediction_sets import PredictionSets

BACKBONES = {"efficientnet_lite0": 64, "tiny": 32}
COVERAGES, PRECISIONS = (0.9, 0.95, 0.99), (0.95, 0.99)


@dataclass(frozen=True)
class Split:
    """What one split of the digits measured, by chosen coverage and by chosen precision."""

    accuracy: float
    sets: Mapping[float, PredictionSets]
    abstentions: Mapping[float, Abstention]


def measure_split(work: Path, backbone: str, image_px: int, seed: int) -> Split:
    """Train a head on one split of the digits, and measure its sets and its abstention."""
    from components.evaluate.assessment import Cost, LabeledLogits, assess
    from components.evaluate.predict import build_runner, predict
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import fine_tune
    from components.ingest.ingest import ingest
    from components.train_head.train_head import train_head
    from regraft_core.formats.options.evaluate import GateOptions
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.fine_tune import FineTuneOptions
    from regraft_core.formats.options.ingest import IngestOptions
    from regraft_core.formats.options.train_head import HeadOptions
    from regraft_core.training.linear_head.refitted_head import RefittedHead
    from regraft_core.training.model_files import load_model

    dataset, features, head = work / "dataset", work / "features", work / "head"
    data = ingest(["sample:digits"], dataset, IngestOptions(seed=seed, processes=1))
    extraction = FeatureOptions(backbone=backbone, image_px=image_px, keep_cut=False)
    extract_features(dataset, features, extraction)
    train_head([features], head, HeadOptions(seed=seed))
    fine_tune(dataset, [features], head, work / "candidate", FineTuneOptions(strategy="head"))
    model, manifest = load_model(work / "candidate")
    (test,) = predict(build_runner(model, manifest.preprocessing), dataset, ["test"], 64)
    before = RefittedHead.read(work / "candidate", manifest.head["refit"])

    def measured(options: GateOptions) -> Assessment:
        return assess(
            LabeledLogits(before.validation_logits, before.validation_labels),
            LabeledLogits(test.logits, test.true_labels),
            data.classes,
            options,
            cost=Cost(),
            out_of_fold=LabeledLogits(before.held_out_logits, before.held_out_labels),
        )

    by_coverage = {one: measured(GateOptions(coverage=one)) for one in COVERAGES}
    by_precision = {one: measured(GateOptions(abstain_precision=one)) for one in PRECISIONS}
    return Split(
        by_coverage[COVERAGES[0]].metrics.values["test_accuracy"],
        {one: found.prediction_sets for one, found in by_coverage.items() if found.prediction_sets},
        {one: found.abstention for one, found in by_precision.items() if found.abstention},
    )


def summarize(splits: Sequence[Split]) -> dict[str, Metric]:
    """Return the metrics over all splits of a backbone."""
    metrics = {"accuracy": Metric(float(np.mean([one.accuracy for one in splits])))}
    for chosen in COVERAGES:
        sets, name = [one.sets[chosen] for one in splits], f"{chosen:.2f}".replace(".", "_")
        images = sum(one.test_images for one in sets)
        # Two standard errors below the chosen one.
        goal = chosen - 2 * (chosen * (1 - chosen) / images) ** 0.5
        covered = sum(one.covered for one in sets) / images
        metrics[f"coverage_{name}"] = Metric(covered, goal=f">= {goal:.4f}")
        metrics[f"coverage_{name}_lowest"] = Metric(min(one.test_coverage for one in sets))
        metrics[f"set_size_{name}"] = Metric(float(np.mean([one.mean_size for one in sets])))
    for chosen in PRECISIONS:
        found, name = [one.abstentions[chosen] for one in splits], f"{chosen:.2f}".replace(".", "_")
        accepted = sum(one.accepted for one in found)
        metrics[f"accepted_{name}"] = Metric(accepted / sum(one.test_images for one in found))
        if accepted:
            goal = chosen - 2 * (chosen * (1 - chosen) / accepted) ** 0.5
            precision = sum(one.correct for one in found) / accepted
            metrics[f"precision_{name}"] = Metric(precision, goal=f">= {goal:.4f}")
    return metrics


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--seeds", type=int, default=5)


def measure(options: argparse.Namespace) -> Measurement:
    """Measure all splits of both backbones."""
    metrics = {}
    for backbone, image_px in BACKBONES.items():
        splits = []
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as work:
                splits.append(measure_split(Path(work), backbone, image_px, seed))
        metrics |= {f"{backbone}_{key}": value for key, value in summarize(splits).items()}
    return Measurement(
        f"digits, {options.seeds} splits each, strategy head; "
        + ", ".join(f"{backbone} at {px} px" for backbone, px in BACKBONES.items()),
        metrics,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("coverage", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
