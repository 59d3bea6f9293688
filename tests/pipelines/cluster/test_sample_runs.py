"""Rates fitted to two runs reproduce them, and predict a third on the same lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.cluster.runtime_estimate import Plan, Rates, estimate_run, head_images
from pipelines.cluster.sample_runs import SampleRun, rates_of_samples
from pipelines.finished_run import read_sample_run
from pipelines.local.run import Summary
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.runtime.errors import InputError
from tests.command_line import Regraft

EPOCHS = 4


def run(images: int, **seconds: float) -> SampleRun:
    """Return a run whose steps take a start and a time per image."""
    train, validation = round(0.65 * images), round(0.15 * images)
    test = images - train - validation
    steps = {
        "ingest": 2 + images / 500,
        "extract_features": 6 + (train + validation) / 200,
        "train_head": 3 + head_images(train) / 1000,
        "fine_tune": 5 + EPOCHS * train / 250,
        "evaluate": 7 + test / 100,
        "export": 8.0, "verify": 9.0, "publish": 1.0,
    }  # fmt: skip
    return SampleRun(train, validation, test, steps | seconds)


@pytest.mark.parametrize("images", [400, 1000, 100_000])
def test_two_runs_predict_all_others(images: int) -> None:
    rates = rates_of_samples(run(1000), run(400), EPOCHS, Rates())
    plan = Plan(images, top_epochs=EPOCHS, node_mb_s=1e9, storage_mb_s=1e9, source_mb_s=1e9)
    found = estimate_run(plan, rates)
    assert found.total_s == pytest.approx(sum(run(images).seconds.values()), rel=1e-3)


def test_a_step_that_is_not_slower_with_more_images_is_constant() -> None:
    rates = rates_of_samples(run(400, train_head=5.0), run(1000, train_head=4.0), EPOCHS, Rates())
    found = estimate_run(Plan(10**6, node_mb_s=1e9, storage_mb_s=1e9), rates)
    assert found.steps["train_head"] == pytest.approx(4.5, abs=0.1)


def test_no_start_up_time_is_negative() -> None:
    rates = rates_of_samples(run(400, ingest=0.1), run(1000, ingest=5.0), EPOCHS, Rates())
    assert (rates.starts["ingest"], rates.ingest_rate) == (0.0, 200.0)


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (run(1000), "different numbers of images"),
        (SampleRun(260, 60, 80, {"ingest": 1.0}), "without the time of extract_features"),
    ],
)
def test_runs_that_do_not_fit_are_refused(first: SampleRun, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rates_of_samples(first, run(1000), EPOCHS, Rates())


def test_a_run_has_the_images_of_its_dataset(dataset: Path, tmp_path: Path) -> None:
    summary = Summary(
        verdict="accepted", reasons=[], strategy="head", model_version=1, saved_model=None,
        published=None, metrics={}, parity={}, timings={"ingest": 1.5}, report="",
        dataset_digest="", dataset=str(dataset), evaluation="",
    )  # fmt: skip
    (tmp_path / "summary.json").write_text(summary.model_dump_json())
    found = read_sample_run(tmp_path)
    splits = DatasetManifest.read(dataset).splits
    assert (found.train, found.validation, found.test) == tuple(
        splits[name].count for name in ("train", "validation", "test")
    )
    assert found.images > 0
    assert found.seconds == {"ingest": 1.5}


def test_the_command_reads_two_runs(regraft: Regraft, tmp_path: Path) -> None:
    ended = regraft("estimate", "--from-run", tmp_path)
    assert ended.code == 2
    assert "from_run: expected two runs of different sizes, got 1" in ended.err
    ended = regraft("estimate", "--from-run", tmp_path / "a", "--from-run", tmp_path / "b")
    assert ended.code == 2
    assert "expected the summary of a run at" in ended.err
    (tmp_path / "summary.json").write_text(json.dumps({"verdict": "accepted"}))
    assert regraft("estimate", "--from-run", tmp_path, "--from-run", tmp_path).code == 2
