"""`regraft runs` and `regraft diff` of what runs have written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.evaluate.report.report_data import ReportData
from pipelines.local.run import Summary
from regraft.compare.run_list import differing_options
from regraft_core.formats.manifest_storage import MadeBy
from regraft_core.formats.manifests.dataset import DatasetManifest, SplitInfo
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.model import ModelManifest, Parameters, Preprocessing
from tests.command_line import Regraft

MADE = MadeBy(step="test", version="0", seconds=1.0)
CLASSES = ["cat", "[red]dog"]
IMAGES = 60
TRUE = np.arange(IMAGES) % 2


def write_run(
    folder: Path, errors: int, *, verdict: Any = "accepted", ids: str = "", pooling: str = "gap",
    train: int = 200, time: int = 0, metrics: dict[str, float] | None = None, **recipe: Any,
) -> Path:  # fmt: skip
    """Write the summary and the evaluation of a run, which is wrong about the first images."""
    evaluation = folder / "steps" / "by_content" / "evaluation"
    evaluation.mkdir(parents=True)
    (folder / "run.log").touch()
    accuracy = 1 - errors / IMAGES
    found = {"test_images": float(IMAGES), "test_accuracy": accuracy,
             "test_accuracy_low": accuracy - 0.1, "test_accuracy_high": min(accuracy + 0.05, 1.0),
             "model_mb": 14.5, "latency_ms": 8.25} | (metrics or {})  # fmt: skip
    counts = {"train": train, "validation": 40, "test": IMAGES}
    dataset = DatasetManifest(
        digest=f"{train:064x}", made_by=MADE, classes=CLASSES, sources=["sample:pets"],
        splits={name: SplitInfo(count=count, by_class={}, shards=[])
                for name, count in counts.items()},  # type: ignore[misc]
    )  # fmt: skip
    model = ModelManifest(
        digest="m" * 64, made_by=MADE, kind="candidate", strategy="head",
        requested_strategy="head", backbone="tiny", weights="imagenet", weights_digest="w" * 64,
        preprocessing=Preprocessing(image_px=64, scaling="tiny"), classes=CLASSES,
        dataset_digest=dataset.digest, cut=None, head={"pooling": pooling}, options={},
        parameters=Parameters(total=100, trainable=10, frozen=90), head_parameters={}, history=[],
        validation_accuracy=0.9, validation_loss=0.3,
    )  # fmt: skip
    result = EvaluationManifest(
        digest="e" * 64, made_by=MADE, verdict=verdict, checks=[], strategy="head",
        model_digest=model.digest, dataset_digest=dataset.digest, classes=CLASSES, candidates=[],
        metrics=found, per_class=[], confusion=[],
    )  # fmt: skip
    data = ReportData(evaluation=result, dataset=dataset, models=[model])
    (evaluation / "report.json").write_text(data.model_dump_json())
    predicted = np.where(np.arange(IMAGES) < errors, 1 - TRUE, TRUE)
    order = np.random.default_rng(errors).permutation(IMAGES)  # shards may be in another order
    np.savez(
        evaluation / "predictions.npz", ids=np.array([f"{ids}{k}" for k in range(IMAGES)])[order],
        true_labels=TRUE[order], logits=np.eye(2, dtype=np.float32)[predicted[order]],
    )  # fmt: skip
    summary = Summary(
        verdict=verdict, reasons=[], strategy="head", model_version=None, saved_model=None,
        published=None, metrics=found, parity={}, timings={"ingest": 20.0, "train_head": 140.0},
        report=str(evaluation / "report.html"), dataset_digest=dataset.digest,
        dataset=str(folder / "dataset"), evaluation=str(evaluation), recipe=recipe,
    )  # fmt: skip
    (folder / "summary.json").write_text(summary.model_dump_json())
    os.utime(folder, (time, time))
    return folder


def test_runs_are_listed_in_the_order_of_their_time(regraft: Regraft, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    write_run(root / "b", 2, time=10, backbone="vgg16", seed=1, destination="/x")
    write_run(root / "group" / "a", 5, time=20, verdict="rejected", seed=1, train=100)
    (root / "going" / "steps").mkdir(parents=True)
    (root / "going" / "run.log").touch()
    os.utime(root / "going", (30, 30))
    (root / "broken").mkdir()
    (root / "broken" / "summary.json").write_text("{")
    os.utime(root / "broken", (40, 40))
    rows = regraft("runs", root, "--json").json
    assert [(row["name"], row["verdict"]) for row in rows] == [
        ("b", "accepted"), ("group/a", "rejected"), ("going", "unfinished"), ("broken", "damaged")
    ]  # fmt: skip
    assert rows[0]["accuracy"] == pytest.approx(58 / 60) and rows[0]["seconds"] == 160
    assert [row["options"] for row in rows[:2]] == [{"backbone": "vgg16"}, {"backbone": None}]
    shown = regraft("runs", root)
    assert shown.code == 0 and max(map(len, shown.out.splitlines())) <= 80
    for text in ("0.9667", "0.867-1.000", "3 min", "14.5", "backbone vgg16", "backbone default",
                 "The datasets differ"):  # fmt: skip
        assert text in shown.out
    one = regraft("runs", root / "b", "--json").json
    assert [(row["name"], row["options"]) for row in one] == [("b", {})]


def test_a_folder_without_runs_is_refused(regraft: Regraft, tmp_path: Path) -> None:
    ended = regraft("runs", tmp_path)
    assert ended.code == 2 and "expected runs in" in ended.err


def test_options_are_compared_by_value() -> None:
    options = [{"a": 1, "b": [1]}, {"a": 1}, {"a": 1, "b": [1], "c": "x"}]
    assert differing_options(options) == [{"b": [1], "c": None}, {"b": None, "c": None},
                                          {"b": [1], "c": "x"}]  # fmt: skip
    assert differing_options([]) == []


def test_two_runs_are_compared_image_by_image(regraft: Regraft, tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", 12, levels="last", seed=3)
    second = write_run(tmp_path / "second", 2, seed=3, verdict="rejected", pooling="gmp")
    found = regraft("diff", first, second, "--json").json
    assert found["verdicts"] == {"first": "accepted", "second": "rejected"}
    assert found["options"] == {"levels": {"first": "last", "second": None}}
    assert found["data"] == {}
    assert found["head"] == {"head reads": {"first": "gap", "second": "gmp"}}
    accuracy = found["metrics"]["test_accuracy"]
    assert accuracy["first"] == pytest.approx(48 / 60)
    assert accuracy["second_interval"] == pytest.approx([58 / 60 - 0.1, 1.0])
    assert "test_accuracy_low" not in found["metrics"]
    paired = found["paired"]
    assert (paired["images"], paired["wins"], paired["losses"]) == (60, 10, 0)
    assert paired["difference"] == pytest.approx(10 / 60) and paired["difference_low"] > 0
    assert paired["p_two_sided"] == pytest.approx(2 / 2**10)
    shown = regraft("diff", first, second)
    tables = shown.out.splitlines()[2:]  # after the paths
    assert shown.code == 0 and max(map(len, tables)) <= 80
    assert "only the second is correct for 10, only the first for 0" in shown.out


def write_labels_run(folder: Path, noise: float) -> Path:
    """Write a run with several labels an image, whose probabilities are the labels and noise."""
    run = write_run(folder, 0)
    evaluation = folder / "steps" / "by_content" / "evaluation"
    report = json.loads((evaluation / "report.json").read_bytes())
    report["dataset"]["labels_per_image"] = "several"
    (evaluation / "report.json").write_text(json.dumps(report))
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (IMAGES, 2))
    probabilities = labels + noise * generator.normal(size=labels.shape)
    probabilities[0] = np.nan if noise else 0.5
    order = np.random.default_rng(int(10 * noise)).permutation(IMAGES)
    np.savez(evaluation / "predictions.npz", ids=np.array([f"{k}" for k in range(IMAGES)])[order],
             true_labels=labels[order], probabilities=probabilities[order])  # fmt: skip
    return run


def test_runs_with_several_labels_are_paired_by_their_map(regraft: Regraft, tmp_path: Path) -> None:
    first, second = write_labels_run(tmp_path / "a", 1.0), write_labels_run(tmp_path / "b", 0.0)
    paired = regraft("diff", first, second, "--json").json["paired"]
    assert (paired["images"], paired["map"]) == (IMAGES - 1, 1.0)
    assert paired["difference"] == pytest.approx(1.0 - paired["champion_map"])
    assert paired["difference_low"] > 0 and paired["p_better"] < 0.01
    shown = regraft("diff", first, second).out
    assert f"mAP on the same {IMAGES - 1} images: difference +0." in shown
    assert "paired bootstrap p = 0.00" in shown
    other = regraft("diff", first, write_run(tmp_path / "c", 0), "--json").json
    assert (other["paired"], other["unpaired"]) == (None, "one run has several labels an image")


def test_other_data_are_not_paired(regraft: Regraft, tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", 3, metrics={"ood_auroc": 0.99})
    second = write_run(tmp_path / "second", 3, ids="x", train=100)
    found = regraft("diff", first, second, "--json").json
    assert found["paired"] is None
    assert found["unpaired"] == "0 of 60 test images are the same"
    assert found["data"]["train images"] == {"first": 200, "second": 100}
    assert found["metrics"]["ood_auroc"]["second"] is None
    assert "not paired: 0 of 60 test images are the same" in regraft("diff", first, second).out
    ended = regraft("diff", first, tmp_path)
    assert ended.code == 2 and "expected the summary of a run" in ended.err
    (second / "steps" / "by_content" / "evaluation" / "report.json").unlink()
    ended = regraft("diff", first, second)
    assert ended.code == 2 and "cannot read the evaluation of the run" in ended.err


@pytest.mark.parametrize("content", [b"x", b"", b"PK\x03\x04 cut off", b"\x93NUMPY\x01"])
def test_damaged_predictions_leave_the_other_comparisons(
    regraft: Regraft, tmp_path: Path, content: bytes
) -> None:
    first, second = (write_run(tmp_path / name, 3) for name in ("first", "second"))
    (second / "steps" / "by_content" / "evaluation" / "predictions.npz").write_bytes(content)
    found = json.loads(regraft("diff", first, second, "--json").out)
    assert found["paired"] is None and "cannot be read" in found["unpaired"]
    assert found["metrics"]["test_accuracy"]["first"] is not None


def test_runs_without_test_images_are_not_paired(regraft: Regraft, tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, 3) for name in ("first", "second")]
    for folder in folders:
        np.savez(
            folder / "steps" / "by_content" / "evaluation" / "predictions.npz",
            ids=np.empty(0, "U1"), true_labels=np.empty(0, int), logits=np.empty((0, 2)),
        )  # fmt: skip
    ended = regraft("diff", *folders, "--json")
    assert ended.json["unpaired"] == "a run has no test images" and "NaN" not in ended.out
