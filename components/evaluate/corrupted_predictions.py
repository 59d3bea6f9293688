"""Predictions of a candidate for corrupted test images."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from components.evaluate.metrics.robustness import CorruptionDrop, predicted_labels
from components.evaluate.predict import Runner
from components.evaluate.report.image_explanation import data_uri
from regraft_core.formats.records import spaced_records
from regraft_core.images.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from regraft_core.runtime.step_reports import ProgressReporter


@dataclass(frozen=True)
class Robustness:
    """The drops of all corruptions, and an image at each strength by kind, as data URIs."""

    drops: list[CorruptionDrop] = field(default_factory=list)
    examples: dict[str, list[str]] = field(default_factory=dict)


def measure_robustness(
    runner: Runner, dataset: str | os.PathLike[str], images: int, batch_size: int, seed: int
) -> Robustness:
    """Predict test images clean and with each corruption.

    Args:
        runner: the candidate's graphs.
        dataset: the dataset's folder, whose test split has images.
        images: how many, evenly spaced over the split.
        batch_size: images per batch.
        seed: of the corruptions.
    """
    records = spaced_records(dataset, "test", images)
    kinds = [(kind, strength) for kind in CORRUPTIONS for strength in range(1, STRENGTHS + 1)]
    progress = ProgressReporter("evaluate: corrupted images", len(records) * len(kinds))
    clean: list[NDArray[np.int64]] = []
    corrupted: dict[tuple[str, int], list[NDArray[np.int64]]] = {pair: [] for pair in kinds}
    examples: dict[str, list[str]] = {}
    for start in range(0, len(records), batch_size):
        batch = records[start : start + batch_size]
        pixels = runner.load(tf.constant([record.encoded for record in batch])).numpy()
        clean.append(_labels(runner, pixels))
        for number, (kind, strength) in enumerate(kinds):
            changed = corrupt(pixels, kind, strength, seed + start * len(kinds) + number)
            corrupted[kind, strength].append(_labels(runner, changed))
            if start == 0:
                image = Image.fromarray(changed[0].round().astype(np.uint8))
                examples.setdefault(kind, []).append(data_uri(image))
            progress.advance(len(batch))
    predicted, labels = np.concatenate(clean), np.array([record.label for record in records])
    drops = [
        CorruptionDrop.of(*pair, predicted, np.concatenate(found), labels)
        for pair, found in corrupted.items()
    ]
    return Robustness(drops, examples)


def _labels(runner: Runner, pixels: NDArray[np.float32]) -> NDArray[np.int64]:
    return predicted_labels(runner.forward(tf.constant(pixels))[0].numpy())
