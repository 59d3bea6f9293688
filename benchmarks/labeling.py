"""What labels are worth: images that `regraft suggest` chooses against random ones.

Both start with the same 20 random images of the digits and label 20 more in each round. After each
round a head is fitted to the features of all levels of the labeled images, as in a run.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from benchmarks.result import Metric
from regraft_core.training.linear_head.head_rows import HeadRows

BATCH, ROUNDS = 20, 6


def measure_labeling(features: Path, test: Path, seeds: int) -> Iterator[tuple[str, Metric]]:
    """Yield the mean test accuracy by the number of labeled images, for both choices.

    Args:
        features: of train and validation.
        test: features of the test images, as a train split.
        seeds: number of repetitions.
    """
    rows, held_out = _rows(features, "train", "validation"), _rows(test, "train")
    curves = {
        choice: np.array([label_in_rounds(rows, held_out, choice, seed) for seed in range(seeds)])
        for choice in ("suggest", "random")
    }
    for choice, curve in curves.items():
        for k, accuracy in enumerate(curve.mean(axis=0), 1):
            yield f"{choice}_accuracy_{BATCH * k}", Metric(float(accuracy))
    gains = (curves["suggest"] - curves["random"])[:, 1:].mean(axis=1)
    yield "suggest_mean_gain", Metric(float(gains.mean()), "", ">= 0")
    yield "suggest_gain_deviation", Metric(statistics.stdev(gains.tolist()) if seeds > 1 else 0.0)


def _rows(folder: Path, *splits: str) -> HeadRows:
    """Return the features of all levels of some splits."""
    from regraft_core.formats.manifests.features import FeaturesManifest
    from regraft_core.training.feature_store import LEVELS, FeatureRows

    found = [FeatureRows([folder], split, LEVELS) for split in splits]  # type: ignore[arg-type]
    widths = [level.width for level in FeaturesManifest.read(folder).levels]
    values = np.concatenate([part for one in found for part in one.parts()])
    labels = np.concatenate([one.labels for one in found])
    wide = values.astype(np.float32)
    return HeadRows(
        [values], labels, np.arange(len(labels)), wide.mean(axis=0), wide.var(axis=0), widths
    )


def label_in_rounds(rows: HeadRows, test: HeadRows, choice: str, seed: int) -> list[float]:
    """Return the test accuracy after each round."""
    from regraft_core.curation.image_selection import select_images
    from regraft_core.formats.options.train_head import HeadOptions
    from regraft_core.training.linear_head.head_selection import solve_head
    from regraft_core.training.linear_head.linear_classifier import Weights

    rng = np.random.default_rng(seed)
    features, known = rows.parts[0].astype(np.float32), test.parts[0].astype(np.float32)
    classes = int(rows.labels.max()) + 1
    labeled: NDArray[np.int64] = rng.permutation(len(rows))[:BATCH]
    accuracies = []
    for _ in range(ROUNDS):
        order = np.sort(labeled)
        part = replace(rows, parts=[rows.parts[0][order]], labels=rows.labels[order], images=order)
        solved = solve_head({"all levels": part}, classes, None, HeadOptions())
        head = Weights(solved.kernel, solved.bias)
        accuracies.append(float((head.logits(known).argmax(axis=1) == test.labels).mean()))
        others = np.setdiff1d(np.arange(len(rows)), labeled)
        if choice == "random":
            chosen = rng.permutation(others)[:BATCH]
        else:
            probabilities = softmax(head.logits(features[others]), axis=1)
            all_known = np.ones(len(others), bool)
            chosen = others[select_images(probabilities, features[others], all_known, BATCH)]
        labeled = np.concatenate([labeled, chosen])
    return accuracies
