"""The training benchmark on a few images and `tiny`, and what its result keeps of its parts."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.result import Figure, Measured, run_benchmark
from benchmarks.training import measure, parts
from benchmarks.training_accuracy import (
    SIDES,
    AccuracyCase,
    accuracy,
    by_keras,
    compared,
    drawn,
)
from benchmarks.training_scaling import GrowthCase, Took, measured_apart, measured_here, ratios


def test_both_sides_of_accuracy_train_the_same_head(tmp_path: Path) -> None:
    """With a rate of next to nothing they end with the weights that they start with."""
    from regraft_core.backbones.build import build_backbone
    from regraft_core.backbones.cuts import freeze
    from regraft_core.training.model_files import load_model

    case = AccuracyCase("tiny", image_px=16, epochs=1, learning_rate=1e-12, images={"digits": 60})
    figures = dict(accuracy(tmp_path, 1, case))
    assert all(0.0 <= figures[f"digits_{side}_test_accuracy"].value <= 1.0 for side in SIDES)
    backbone = build_backbone("tiny", 16)
    freeze(backbone)
    trial = drawn(tmp_path / "digits", tmp_path / "again", 0, case, backbone)
    ours, _ = load_model(tmp_path / "digits-0" / "model")
    logits, same = (
        model.predict(trial.splits["test"][0], verbose=0) for model in (ours, by_keras(trial))
    )
    assert logits.shape[1] == 10
    # Ours was standardized by features in float16.
    np.testing.assert_allclose(logits, same, atol=1e-2)


def test_differences_of_accuracy_are_in_points() -> None:
    found = {"regraft": [0.9, 0.8], "keras": [0.9, 0.81], "plain_head": [0.8, 0.7]}
    figures = dict(compared("digits", found))
    assert figures["digits_keras_test_accuracy"].value == pytest.approx(0.855)
    assert figures["digits_keras_test_accuracy_spread"].value == pytest.approx(0.0636, abs=1e-4)
    assert figures["digits_accuracy_difference"].value == pytest.approx(-0.5)
    assert figures["digits_accuracy_difference"].goal
    assert figures["digits_accuracy_above_plain_head"].value == pytest.approx(10.0)
    assert not figures["digits_accuracy_above_plain_head"].goal


def test_steps_of_growth_follow_each_other(shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "images" / "train")
    case = GrowthCase("tiny", head_epochs=1)
    ingest = measured_apart("ingest", tmp_path, case)
    for step in ("extraction", "head"):
        took = measured_here(step, tmp_path, case)
        assert took.seconds > 0
        # TensorFlow is in this process and not in that of ingest.
        assert took.peak_mb > ingest.peak_mb > 1
    assert (tmp_path / "head" / "model.json").is_file()


def test_growth_is_that_beyond_the_start() -> None:
    extraction = {1: Took(3.0, 500.0), 3: Took(5.0, 500.0), 7: Took(13.0, 550.0)}
    head = {1: Took(1.0, 400.0), 3: Took(1.0, 400.0), 7: Took(1.0, 600.0)}
    figures = {name: figure.value for name, figure in ratios(extraction, head)}
    assert figures == {
        "growth_time_an_image": pytest.approx(2.0),
        "growth_extraction_memory_times": pytest.approx(1.1),
        "growth_head_memory_times": pytest.approx(1.5),
    }


@pytest.mark.parametrize(
    ("only", "backbone", "names"),
    [
        ("head", "vgg16", ["head vgg16"]),
        ("top", "all", ["top vgg16"]),
        ("top", "efficientnet_lite0", []),
        ("accuracy", "all", ["accuracy"]),
        ("all", "vgg16", ["head vgg16", "top vgg16", "extraction vgg16", "accuracy", "growth"]),
    ],
)
def test_parts_are_chosen_by_name_and_backbone(only: str, backbone: str, names: list[str]) -> None:
    assert [part.name for part in parts(only, backbone, 2)] == names


def test_figures_of_parts_that_are_not_measured_stay(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    figures = {"growth_old": Figure(1.0).as_json(), "vgg16_head_images": Figure(2.0).as_json()}
    file.write_text(json.dumps({"figures": figures}))
    given = argparse.Namespace(json=file, only="top", backbone="efficientnet_lite0", seeds=2)
    assert measure(given).figures.keys() == figures.keys()


def test_each_part_keeps_its_own_command(tmp_path: Path) -> None:
    file = tmp_path / "result.json"

    def run(part: str) -> None:
        run_benchmark(
            "some",
            "",
            lambda parser: parser.add_argument("--only"),
            lambda given: Measured("", {}, [given.only]),
            ["--json", str(file), "--only", part],
        )

    run("first")
    run("second")
    result = json.loads(file.read_text())
    assert result["command"] == result["parts"]["second"]["command"]
    assert result["parts"].keys() == {"first", "second"}
    for part, told in result["parts"].items():
        assert f"--only={part}" in told["command"]
        assert told.keys() == {"command", "date", "machine"}
