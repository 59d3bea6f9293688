"""The changed labels of the review benchmark, and its curve of labeling."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.labeling import BATCH, ROUNDS, label_in_rounds
from benchmarks.review import FLIPPED, flip_labels
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.training.linear_head.head_rows import HeadRows
from tests.reviewable_run import build_run


def test_a_part_of_the_labels_is_changed(tmp_path: Path) -> None:
    run = build_run(tmp_path)
    flipped = flip_labels(tmp_path / "images", run.dataset, tmp_path / "changed", seed=1)
    splits = DatasetManifest.read(run.dataset).splits
    assert len(flipped) == round(FLIPPED * (splits["train"].count + splits["validation"].count))
    assert all(changed != true_class for changed, true_class in flipped.values())
    before, after = (
        {file.name: (file.parent.name, file.read_bytes()) for file in folder.glob("*/*.png")}
        for folder in (tmp_path / "images", tmp_path / "changed")
    )
    moved = [name for name in before if before[name][0] != after[name][0]]
    assert len(moved) == len(flipped)
    assert all(before[name][1] == after[name][1] for name in before)


def test_images_are_labeled_in_rounds() -> None:
    rng = np.random.default_rng(0)
    labels = (np.arange(300) % 3).astype(np.int32)
    values = (rng.normal(size=(300, 6)) + 2 * np.eye(6)[labels]).astype(np.float32)
    rows = HeadRows([values], labels, np.arange(300), values.mean(0), values.var(0), [6])
    assert len(rows) > BATCH * ROUNDS
    curves = [label_in_rounds(rows, rows, choice, 0) for choice in ("suggest", "random", "random")]
    assert all(len(curve) == ROUNDS and curve[-1] > 0.8 for curve in curves)
    assert curves[0][0] == curves[1][0] and curves[1] == curves[2]
