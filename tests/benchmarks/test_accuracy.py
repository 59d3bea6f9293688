"""The accuracy benchmark on a few images and `tiny`, and the metrics of its rows."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import ALL_ROWS, COLUMNS, ROWS, Row, ingest_images, measure, summarize
from benchmarks.accuracy_heads import write_rows
from benchmarks.accuracy_images import PHOTOS, write_faces, write_photos
from benchmarks.accuracy_process import Outcome, Settings, measure_here
from benchmarks.result import Metric
from docs.results.training_tables import accuracy
from docs.results.values import load_results
from regraft_core.formats.manifests.dataset import DatasetManifest

TINY = Settings("tiny", image_px=32, head_epochs=1, all_epochs=1, top_epochs=1, budget="40s")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    write_faces(folder / "images", 10, seed=0)
    ingest_images(folder, TINY)
    return folder


def test_all_other_faces_are_for_the_test(faces: Path) -> None:
    splits = DatasetManifest.read(faces / "dataset").splits
    assert splits["train"].count + splits["validation"].count == 20
    assert splits["test"].by_class == {"face": 90, "other": 90}
    assert min(splits["validation"].by_class.values()) >= 1


@pytest.mark.long
@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_is_tested_on_the_images_of_the_test(column: str, faces: Path) -> None:
    outcome = measure_here(column, faces, TINY)
    correct = outcome.value * 180
    assert correct == pytest.approx(round(correct), abs=1e-4)
    assert outcome.seconds > 0 and outcome.peak_mb > 1


def test_photographs_are_cut_into_tiles_that_differ_by_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_photos(tmp_path / str(seed), 5, seed)
    files = [{p.relative_to(tmp_path / s) for p in (tmp_path / s).rglob("*.png")} for s in "01"]
    assert [len(one) for one in files] == [64 * len(PHOTOS)] * 2
    assert len(list((tmp_path / "0" / "train").rglob("*.png"))) == 5 * len(PHOTOS)
    assert files[0] != files[1]


def test_the_solver_converges_on_rows_on_disk(tmp_path: Path) -> None:
    write_rows(tmp_path, rows=600, width=40, classes=3)
    assert measure_here("million", tmp_path, TINY).value == pytest.approx(1.0, abs=1e-2)


def test_a_row_is_compared_with_the_strong_baseline_or_the_best_column() -> None:
    found = {
        column: [Outcome(value, 2.0, 300.0), Outcome(value, 4.0, 200.0)]
        for column, value in zip(COLUMNS, (0.9, 0.97, 0.85, 0.95), strict=True)
    }
    row = ROWS["digits-64"]
    metrics = dict(summarize("digits-64", row, found))
    assert metrics["digits_64_regraft_accuracy"].holds is False
    assert metrics["digits_64_lead"].value == pytest.approx(5.0)
    assert metrics["digits_64_regraft_seconds"].value == pytest.approx(3.0)
    assert metrics["digits_64_regraft_memory"].value == pytest.approx(300.0)
    best = Row(row.write, 96, lead=">= -0.5", against_best=True)
    assert dict(summarize("x", best, found))["x_lead"].value == pytest.approx(-5.0)


def test_a_row_leaves_those_with_a_longer_name(tmp_path: Path) -> None:
    file = tmp_path / "accuracy.json"
    names = {f"{name.replace('-', '_')}_lead" for name in ALL_ROWS}
    metrics = {name: Metric(1.0, "points", ">= 0").as_json() for name in names}
    file.write_text(json.dumps({"figures": metrics}))
    for name in ("photos-5", "fashion-1000"):
        prefix = f"{name.replace('-', '_')}_"
        assert [one for one in names if one.startswith(prefix)] == [f"{prefix}lead"]
    with pytest.raises(KeyError):
        measure(argparse.Namespace(json=file, row="none", seeds=1))


def test_the_table_has_the_rows_that_were_measured(tmp_path: Path) -> None:
    outcomes = {c: [Outcome(0.9, 2.0, 300.0)] * 2 for c in COLUMNS}
    figures = {
        key: metric.as_json()
        for name in ("digits-64", "photos-5")
        for key, metric in summarize(name, ROWS[name], outcomes)
    }
    (tmp_path / "accuracy.json").write_text(json.dumps({"figures": figures}))
    lines = accuracy(load_results(tmp_path)).splitlines()
    assert len(lines) == 4
    assert "| 0.900 (0.000), 2 s, 300 MB |" in lines[2]
    assert lines[3].endswith("| +0.0 points | at least -0.5 points |")
    assert np.all([line.count("|") == 8 for line in lines])
