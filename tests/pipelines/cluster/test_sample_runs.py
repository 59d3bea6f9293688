"""Rates fitted to two runs reproduce them, and predict a third on the same lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.cluster.runtime_estimate import Plan, Rates, estimate_run, head_images
from pipelines.cluster.sample_runs import SampleRun, rates_of_samples
from pipelines.finished_run import read_sample_run
from pipelines.local.run import Summary
from regraft_core.formats.manifest_storage import MadeBy
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.evaluation import CandidateResult, EvaluationManifest
from regraft_core.runtime.errors import InputError
from tests.command_line import Regraft

EPOCHS, TRIALS = 4, 3


def run(images: int, epochs: int = TRIALS + EPOCHS, **seconds: float) -> SampleRun:
    """Return a run whose steps take a start and a time per image."""
    train, validation = round(0.65 * images), round(0.15 * images)
    test = images - train - validation
    steps = {
        "ingest": 2 + images / 500,
        "extract_features": 6 + (train + validation) / 200,
        "train_head": 3 + head_images(train) / 1000,
        "fine_tune": 5 + epochs * train / 250,
        "evaluate": 7 + test / 100,
        "export": 8.0, "verify": 9.0, "publish": 1.0,
    }  # fmt: skip
    return SampleRun(train, validation, test, epochs, steps | seconds)


@pytest.mark.parametrize("images", [400, 1000, 100_000])
@pytest.mark.parametrize("epochs", [(TRIALS, TRIALS), (TRIALS, TRIALS + 1), (TRIALS + EPOCHS, 3)])
def test_two_runs_predict_both_ends_of_all_others(images: int, epochs: tuple[int, int]) -> None:
    small, large = epochs
    rates = rates_of_samples(run(2000, large), run(400, small), Rates())
    plan = Plan(images, top_epochs=EPOCHS, node_mb_s=1e9, storage_mb_s=1e9, source_mb_s=1e9)
    found = estimate_run(plan, rates)
    longest, shortest = (run(images, count) for count in (TRIALS + EPOCHS, TRIALS))
    assert found.total_s == pytest.approx(sum(longest.seconds.values()), rel=1e-3)
    assert found.without_gain_s == pytest.approx(sum(shortest.seconds.values()), rel=1e-3)


def test_without_fine_tuning_its_step_is_constant() -> None:
    rates = rates_of_samples(run(1000, 0), run(400, 0), Rates())
    found = estimate_run(Plan(10**6, node_mb_s=1e9, storage_mb_s=1e9), rates)
    assert found.steps["fine_tune"] == pytest.approx(5, abs=0.1)


def test_a_step_that_is_not_slower_with_more_images_is_constant() -> None:
    rates = rates_of_samples(run(400, train_head=5.0), run(1000, train_head=4.0), Rates())
    found = estimate_run(Plan(10**6, node_mb_s=1e9, storage_mb_s=1e9), rates)
    assert found.steps["train_head"] == pytest.approx(4.5, abs=0.1)


def test_no_start_up_time_is_negative() -> None:
    rates = rates_of_samples(run(400, ingest=0.1), run(1000, ingest=5.0), Rates())
    assert (rates.starts["ingest"], rates.ingest_rate) == (0.0, 200.0)


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (run(900), "ingest: expected a run with at least 1.5 times the images"),
        (run(400, 7), "fine_tune: expected .*, got 1820 and 1950; give a larger one"),
        (SampleRun(260, 60, 80, 3, {"ingest": 1.0}), "without the time of extract_features"),
    ],
)
def test_runs_that_do_not_fit_are_refused(first: SampleRun, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rates_of_samples(first, run(1000, TRIALS), Rates())


def write_run(folder: Path, dataset: Path, top_epochs: int | None) -> None:
    """Write what is read of a run with candidates `head` and `top`."""
    summary = Summary(
        verdict="accepted", reasons=[], strategy="head", model_version=1, saved_model=None,
        published=None, metrics={}, parity={}, timings={"ingest": 1.5}, report="",
        dataset_digest="", dataset=str(dataset), evaluation=str(folder),
    )  # fmt: skip
    (folder / "summary.json").write_text(summary.model_dump_json())
    candidates = [
        CandidateResult(strategy=strategy, digest=strategy, validation_accuracy=0.9,
                        validation_loss=0.3, seconds=1.0, epochs=epochs, chosen=not epochs)
        for strategy, epochs in (("head", 0), ("top", top_epochs))
    ]  # fmt: skip
    EvaluationManifest(
        digest="", made_by=MadeBy(step="evaluate", version="0", seconds=1.0), verdict="accepted",
        checks=[], strategy="head", model_digest="head", dataset_digest="", classes=["a", "b"],
        candidates=candidates, metrics={}, per_class=[], confusion=[],
    ).write(folder)  # fmt: skip


def test_a_run_has_the_images_of_its_dataset(dataset: Path, tmp_path: Path) -> None:
    write_run(tmp_path, dataset, top_epochs=5)
    found = read_sample_run(tmp_path)
    splits = DatasetManifest.read(dataset).splits
    assert (found.train, found.validation, found.test) == tuple(
        splits[name].count for name in ("train", "validation", "test")
    )
    assert found.images > 0
    assert found.top_epochs == 5
    assert found.seconds == {"ingest": 1.5}


def test_a_run_whose_epochs_are_not_known_is_refused(dataset: Path, tmp_path: Path) -> None:
    write_run(tmp_path, dataset, top_epochs=None)
    with pytest.raises(InputError, match=r"of this version of Regraft in .*run it again"):
        read_sample_run(tmp_path)


def test_the_command_reads_two_runs(regraft: Regraft, tmp_path: Path) -> None:
    ended = regraft("estimate", "--from-run", tmp_path)
    assert ended.code == 2
    assert "from_run: expected two runs of different sizes, got 1" in ended.err
    ended = regraft("estimate", "--from-run", tmp_path / "a", "--from-run", tmp_path / "b")
    assert ended.code == 2
    assert "expected the summary of a run at" in ended.err
    (tmp_path / "summary.json").write_text(json.dumps({"verdict": "accepted"}))
    assert regraft("estimate", "--from-run", tmp_path, "--from-run", tmp_path).code == 2
