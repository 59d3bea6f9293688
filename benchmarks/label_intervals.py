"""How often the intervals of the mean average precision contain its true value.

    regraft bench label_intervals --json benchmarks/results/label_intervals.json

Test splits are made from a known distribution: labels with given frequencies, and scores that are
normal with a mean that depends on the label, and partly the same for all labels of an image. The
true value is that of many images. Bias-corrected intervals are those of the gate; percentile
intervals are for comparison. `chance` is how often scores that know nothing of the labels pass the
gate's baseline.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.result import Measurement, Metric, run_benchmark

if TYPE_CHECKING:
    from components.evaluate.metrics.multilabel import LabelPredictions

TRUE_IMAGES, SHARED_NOISE = 200_000, 0.5


@dataclass(frozen=True)
class Made:
    """A kind of test split: images, frequencies of the labels, and how far scores are apart."""

    images: int
    frequencies: tuple[float, ...]
    margin: float

    def draw(self, rng: np.random.Generator, images: int = 0) -> LabelPredictions:
        """Return predictions of as many images as a test split has, or of another number."""
        from components.evaluate.metrics.multilabel import LabelPredictions

        shape = images or self.images, len(self.frequencies)
        true_labels = rng.random(shape) < self.frequencies
        noise = rng.normal(size=shape) + SHARED_NOISE * rng.normal(size=(shape[0], 1))
        scores = (noise + self.margin * true_labels).astype(np.float32)
        return LabelPredictions(scores, scores > self.margin / 2, true_labels)


KINDS = {
    "good": Made(100, (0.5, 0.3, 0.2, 0.1, 0.1), 2.5),
    "excellent": Made(150, (0.3, 0.2, 0.2, 0.2, 0.1), 4.5),
    "weak": Made(200, (0.3, 0.2, 0.1, 0.05, 0.05), 0.7),
    "rare": Made(300, (0.3, 0.1, 0.05, 0.03, 0.02, 0.02, 0.01, 0.01), 2.0),
}


def measure_kind(kind: Made, splits: int) -> Iterator[tuple[str, Metric]]:
    """Yield the true value, and the fraction of the splits whose interval contains it."""
    from components.evaluate.metrics.average_precision import chance_scores
    from components.evaluate.metrics.bootstrap import bootstrap, bootstrap_interval
    from components.evaluate.metrics.multilabel import MEAN_AP

    rng = np.random.default_rng(0)
    true_value = _score(kind.draw(rng, TRUE_IMAGES))
    corrected, percentile, passed = [], [], []
    for seed in range(splits):
        found = kind.draw(rng)
        resampled = bootstrap(found.scores, kind.images, seed)[MEAN_AP]
        low, high = bootstrap_interval(resampled, _score(found))
        corrected.append(low <= true_value <= high)
        low, high = np.quantile(resampled, [0.025, 0.975])
        percentile.append(low <= true_value <= high)
        blind = rng.normal(size=found.probabilities.shape).astype(np.float32)
        chance = chance_scores(blind, found.true_labels, seed)
        passed.append(_score(found, blind) > np.quantile(chance, 0.95))
    yield "images", Metric(kind.images, "images")
    yield "map", Metric(true_value)
    yield "corrected", Metric(float(np.mean(corrected)))
    yield "percentile", Metric(float(np.mean(percentile)))
    yield "chance", Metric(float(np.mean(passed)), "", "<= 0.1")


def _score(found: LabelPredictions, probabilities: np.ndarray | None = None) -> float:
    """Return the mAP, of other probabilities if there are any."""
    from components.evaluate.metrics.average_precision import LabelRanking

    scores = found.probabilities if probabilities is None else probabilities
    once = np.ones((len(scores), 1), np.float32)
    return float(LabelRanking(scores, found.true_labels).means(once)[0])


def measure(options: argparse.Namespace) -> Measurement:
    """Measure each kind of test split."""
    metrics = {
        f"{name}_{metric}": value
        for name, kind in KINDS.items()
        for metric, value in measure_kind(kind, options.splits)
    }
    return Measurement(f"{options.splits} made test splits of each kind", metrics)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the number of test splits."""
    parser.add_argument("--splits", type=int, default=400, help="Test splits of each kind.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("label_intervals", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
