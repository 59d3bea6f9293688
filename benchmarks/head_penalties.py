"""The head of many rows, with the penalties of cross-validation on a sample, and with grown ones.

    regraft bench head_penalties --json benchmarks/results/head_penalties.json
    regraft bench head_penalties --json benchmarks/results/head_penalties.json --features features

Training rows are 16 times as many as those that the heads are compared on, as 48,000 are of 3,000.
They are made around centers of their classes, of low rank and with noise, like pooled features.
With `--features`, they are those of an extraction, train and validation together. Both heads are
fitted to all training rows, and predict the same other rows. Before, the penalties of the summed
loss and the temperature are those of cross-validation; accuracy does not depend on the temperature.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.result import Measurement, Metric, read_metrics, run_benchmark

TIMES, ROWS, OTHERS = 16, 6400, 6000
Rows = tuple[NDArray[np.float32], NDArray[np.int32]]


@dataclass(frozen=True)
class Made:
    """A kind of rows: features, rank, classes, how far these are apart, and wrong labels."""

    width: int
    rank: int
    classes: int
    distance: float
    noise: float = 0.5
    wrong: float = 0.0

    def draw(self, seed: int) -> Rows:
        """Return features and labels of training rows and others."""
        rng, count = np.random.default_rng(seed), ROWS + OTHERS
        axes = rng.normal(size=(self.rank, self.width)) / 8
        centers = self.distance * rng.normal(size=(self.classes, self.rank))
        labels = rng.integers(0, self.classes, count)
        inner = centers[labels] + rng.normal(size=(count, self.rank))
        noise = self.noise * rng.normal(size=(count, self.width))
        changed = rng.random(count) < self.wrong
        labels[changed] = rng.integers(0, self.classes, int(changed.sum()))
        return np.maximum(inner @ axes + noise, 0).astype(np.float32), labels.astype(np.int32)


KINDS = {
    "few_features": Made(100, 40, 5, 0.4, wrong=0.05),
    "easy": Made(256, 64, 10, 0.5),
    "noisy": Made(256, 64, 10, 0.3, noise=1.0, wrong=0.1),
    "many_features": Made(800, 64, 10, 0.35),
    "wrong_labels": Made(800, 200, 10, 0.2, wrong=0.05),
}


@dataclass(frozen=True)
class Compared:
    """Log loss and accuracy on other rows, before and after the penalties have grown."""

    loss: tuple[float, float]
    accuracy: tuple[float, float]
    factor: float


def compare_heads(train: Rows, others: Rows, seed: int) -> Compared:
    """Fit the chosen head to all training rows, with both penalties."""
    from threadpoolctl import threadpool_limits

    from regraft_core.formats.options.train_head import HeadOptions
    from regraft_core.training.linear_head.chosen_fits import MemberFits
    from regraft_core.training.linear_head.head_rows import HeadRows
    from regraft_core.training.linear_head.head_selection import best_mean
    from regraft_core.training.linear_head.held_out_fits import compare_fits, make_task
    from regraft_core.training.linear_head.held_out_scores import log_loss
    from regraft_core.training.linear_head.penalty_growth import grow_penalties

    features, labels = train
    rows = HeadRows([features], labels, np.arange(len(labels)), features.mean(axis=0),
                    features.var(axis=0), [features.shape[1]])  # fmt: skip
    classes, compared = int(labels.max()) + 1, len(labels) // TIMES
    options = HeadOptions(seed=seed)
    with threadpool_limits(1, "blas"):
        task = make_task(rows, classes, None, options, compared)
        chosen = best_mean(compare_fits(rows, "", task, options), task.known)
        count = len(task.sample)
        grown = grow_penalties(rows, classes, None, options, chosen.members, count)
        fits = MemberFits(rows, task)
        logits = [
            fits.mean(members, count).logits(others[0]) / temperature
            for members, temperature in (
                (chosen.members, chosen.temperature), (grown.members, grown.temperature),
            )
        ]  # fmt: skip
    before, after = (
        (log_loss(one, others[1]), float((one.argmax(axis=1) == others[1]).mean()))
        for one in logits
    )
    return Compared((before[0], after[0]), (before[1], after[1]), grown.factor)


def measure_kind(
    draw: Callable[[int], tuple[Rows, Rows]], seeds: int
) -> Iterator[tuple[str, Metric]]:
    """Yield means over the seeds, of the factor the geometric one, and differences with errors."""
    found = [compare_heads(*draw(seed), seed) for seed in range(seeds)]
    for name, values in (
        ("loss", np.array([one.loss for one in found])),
        ("accuracy", np.array([one.accuracy for one in found])),
    ):
        difference = values[:, 1] - values[:, 0]
        yield f"{name}_before", Metric(float(values[:, 0].mean()))
        yield f"{name}_after", Metric(float(values[:, 1].mean()))
        yield (
            f"{name}_difference",
            Metric(float(difference.mean()), "", "<= 0" if name == "loss" else ">= -0.002"),
        )
        error = float(difference.std(ddof=1) / np.sqrt(seeds))
        yield f"{name}_difference_error", Metric(error)
    yield "factor", Metric(float(np.exp(np.mean([np.log(one.factor) for one in found]))))


def _drawn(kind: Made, seed: int) -> tuple[Rows, Rows]:
    features, labels = kind.draw(seed)
    return (features[:ROWS], labels[:ROWS]), (features[ROWS:], labels[ROWS:])


def _divided(
    features: NDArray[np.float32], labels: NDArray[np.int32], seed: int
) -> tuple[Rows, Rows]:
    """Return four fifths of the rows for training, and the others."""
    order = np.random.default_rng(seed).permutation(len(labels))
    train, others = np.split(order, [4 * len(order) // 5])
    return (features[train], labels[train]), (features[others], labels[others])


def _read(folder: Path) -> Rows:
    """Return the averages of the last level of both splits of an extraction."""
    from regraft_core.training.feature_store import FeatureRows

    splits = [FeatureRows([folder], split, "gap") for split in ("train", "validation")]
    features = np.concatenate([part for rows in splits for part in rows.parts()])
    labels = np.concatenate([rows.labels for rows in splits])
    return features.reshape(len(labels), -1).astype(np.float32), labels


def measure(options: argparse.Namespace) -> Measurement:
    """Measure the made rows, or those of an extraction; the metrics of the others are kept."""
    draws: dict[str, Callable[[int], tuple[Rows, Rows]]] = {
        name: partial(_drawn, kind) for name, kind in KINDS.items()
    }
    if options.features:
        stored = _read(options.features)
        draws = {"extracted": partial(_divided, *stored)}
    metrics = {
        f"{name}_{metric}": value
        for name, draw in draws.items()
        for metric, value in measure_kind(draw, options.seeds)
    }
    return Measurement(
        f"{ROWS} made training rows of each kind and {OTHERS} others; "
        "features of `efficientnet_lite0` of 14,362 images of Fashion-MNIST, a fifth as others",
        read_metrics(options.json) | metrics,
        ["features" if options.features else "made"],
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the number of seeds, and an extraction."""
    parser.add_argument("--seeds", type=int, default=5, help="Seeds of each kind of rows.")
    parser.add_argument("--features", type=Path, help="Folder of extracted features.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("head_penalties", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
