"""Each long pass of a step counts what it has done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from components.evaluate.predict import build_runner, predict, predict_encoded
from components.fine_tune.choose_strategy import gather_evidence
from components.fine_tune.detector import fit_detector
from components.fine_tune.fine_tune import load_parts
from components.ingest.ingest import ingest
from components.train_head.train_head import train_head
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.formats.records import read_split
from regraft_core.training.model_files import load_model

if TYPE_CHECKING:
    from tests.conftest import Trained

Counts = Callable[[], dict[str, str]]


def test_ingest_counts_the_files_and_the_images(
    shapes: Path, tmp_path: Path, reported: Counts
) -> None:
    ingest([str(shapes)], tmp_path / "dataset", IngestOptions(processes=1))
    found = reported()
    assert (found["ingest: files read"], found["ingest: images written"]) == ("120", "120 of 120")
    assert found["ingest: search for similar images, parts"] == "5 of 5"


def test_the_head_counts_its_fits(trained: Trained, tmp_path: Path, reported: Counts) -> None:
    train_head([trained.features], tmp_path / "head", HeadOptions())
    found = reported()
    for what in ("fits to compare levels", "fits in closed form", "fits to parts of the images"):
        done, total = found[f"head: {what}"].split(" of ")
        assert done == total
    assert int(found["head: fits of logistic regression"].split(" of ")[0]) >= 5


def test_fine_tuning_counts_the_images_of_its_passes(
    dataset: Path, trained: Trained, reported: Counts
) -> None:
    parts = load_parts(dataset, [trained.features], trained.head)
    fit_detector(parts, "top", 8, 0)
    gather_evidence(dataset, [trained.features], parts.head, 0)
    found = reported()
    passes = ("train images of the detector", "validation images of the detector",
              "images without pretraining")  # fmt: skip
    for what in passes:
        done, total = found[f"fine_tune: {what}"].split(" of ")
        assert done == total


def test_evaluation_counts_the_images_of_both_splits(
    dataset: Path, trained: Trained, reported: Counts
) -> None:
    model, manifest = load_model(trained.candidates["top"])
    runner = build_runner(model, manifest.preprocessing)
    predict(runner, dataset, ("test", "validation"), 8)
    predict_encoded(runner, [record.encoded for record in read_split(dataset, "test")], 8)
    assert reported()["evaluate: OOD images"] == "24 of 24"
    done, total = reported()["evaluate: images of test and validation"].split(" of ")
    assert done == total
