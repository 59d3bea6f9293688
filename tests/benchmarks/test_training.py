"""The training benchmark on a few images and `tiny`, and the parts of its result."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pytest

from benchmarks.result import Measurement, Metric, run_benchmark
from benchmarks.training import measure, select_parts
from benchmarks.training_precision import (
    AccuracyCase,
    StepCase,
    difference,
    precision,
    shortest,
)
from benchmarks.training_scaling import (
    ScalingCase,
    StepCost,
    measure_here,
    measure_in_process,
    ratios,
)


@pytest.mark.long
def test_steps_and_accuracy_are_measured_in_both_precisions(tmp_path: Path) -> None:
    accuracy_case = AccuracyCase("tiny", image_px=16, epochs=1, images=60)
    steps = [StepCase("tiny", "random", 32, images=60)]
    metrics = dict(precision(tmp_path, 1, 2, steps, accuracy_case))
    for half in ("float32", "bfloat16"):
        for strategy in ("top", "full"):
            assert metrics[f"precision_tiny_{strategy}_{half}_step"].value > 0
        assert 0.0 <= metrics[f"precision_digits_{half}_test_accuracy"].value <= 1.0
    assert metrics["precision_tiny_full_speedup"].value > 0


def test_steps_run_in_turn() -> None:
    ran: list[str] = []
    found = shortest({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 3)
    assert ran == ["a", "b"] * 3
    assert found.keys() == {"a", "b"}


def test_the_difference_of_precisions_is_that_of_the_same_seeds() -> None:
    runs = [{"float32": 0.5, "bfloat16": 0.51}, {"float32": 0.9, "bfloat16": 0.93}]
    metrics = {name: metric.value for name, metric in difference(runs)}
    assert metrics == {
        "precision_digits_difference": pytest.approx(2.0),
        "precision_digits_difference_error": pytest.approx(1.0),
    }


def test_scaling_steps_use_the_outputs_of_earlier_steps(shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "images" / "train")
    case = ScalingCase("tiny")
    ingest = measure_in_process("ingest", tmp_path, case)
    for step in ("extraction", "head"):
        cost = measure_here(step, tmp_path, case)
        assert cost.seconds > 0
        # TensorFlow is loaded in this process and not in that of ingest.
        assert cost.peak_mb > ingest.peak_mb > 1
    assert (tmp_path / "head" / "model.json").is_file()


def test_time_per_image_excludes_the_start() -> None:
    extraction = {1: StepCost(3.0, 500.0), 3: StepCost(5.0, 500.0), 7: StepCost(13.0, 550.0)}
    head = {1: StepCost(1.0, 400.0), 3: StepCost(1.0, 400.0), 7: StepCost(1.0, 600.0)}
    metrics = {name: metric.value for name, metric in ratios(extraction, head)}
    assert metrics == {
        "scaling_time_per_image_ratio": pytest.approx(2.0),
        "scaling_extraction_memory_ratio": pytest.approx(1.1),
        "scaling_head_memory_ratio": pytest.approx(1.5),
    }


@pytest.mark.parametrize(
    ("only", "backbone", "names"),
    [
        ("head", "vgg16", ["head vgg16"]),
        ("top", "all", ["top vgg16"]),
        ("top", "efficientnet_lite0", []),
        (
            "all",
            "vgg16",
            ["head vgg16", "top vgg16", "extraction vgg16", "scaling", "precision"],
        ),
    ],
)
def test_parts_are_selected_by_name_and_backbone(
    only: str, backbone: str, names: list[str]
) -> None:
    assert [part.name for part in select_parts(only, backbone, 2)] == names


def test_metrics_of_other_parts_stay(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    figures = {"scaling_old": Metric(1.0).as_json(), "vgg16_head_images": Metric(2.0).as_json()}
    file.write_text(json.dumps({"figures": figures}))
    options = argparse.Namespace(json=file, only="top", backbone="efficientnet_lite0", seeds=2)
    assert measure(options).metrics.keys() == figures.keys()


def test_each_part_keeps_its_own_command(tmp_path: Path) -> None:
    file = tmp_path / "result.json"

    def run(part: str) -> None:
        run_benchmark(
            "some",
            "",
            lambda parser: parser.add_argument("--only"),
            lambda options: Measurement("", {}, [options.only]),
            ["--json", str(file), "--only", part],
        )

    run("first")
    run("second")
    result = json.loads(file.read_text())
    assert result["command"] == result["parts"]["second"]["command"]
    assert result["parts"].keys() == {"first", "second"}
    assert str(tmp_path) not in result["command"]
    for part, run_of_part in result["parts"].items():
        assert f"--only={part}" in run_of_part["command"]
        assert run_of_part.keys() == {"command", "date", "machine", "instructions"}
